"""One call on /v1/*: what is executed, once a key, and what becomes of the answer. No HTTP in here.

The order of a call: stamped at receipt, the scenario's delay, the effect entered into the ledger, one
commit, the answer. A caller that goes away stops nothing: a PSP finishes what it has begun.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import orjson
from pydantic import ValidationError

from tollgate.clock import Clock
from tollgate.errors import OperationalError
from tollgate.local.simulator import requests
from tollgate.local.simulator.behaviour import Delivery, behaviour_of
from tollgate.local.simulator.charges import (
    Answer,
    Charge,
    Execution,
    NewId,
    decide_cancel,
    decide_capture,
    decide_charge,
    decide_late,
    decide_refund,
    decide_visit,
)
from tollgate.local.simulator.events import event_of
from tollgate.local.simulator.ledger import UNAVAILABLE, Ledger
from tollgate.local.simulator.requests import Refusal
from tollgate.local.simulator.scenario import Director

_CHARGES: Final = "/v1/charges"
PAGES: Final = "/3ds/"  # where payers confirm, one page a charge
_CHARGE_PATH = re.compile(rf"{_CHARGES}/([a-z0-9_]+)(?:/(capture|cancel|refunds))?")


@dataclass(frozen=True, slots=True)
class Call:
    """A received call. `number` is its place in the ledger; `key` is empty when none was sent."""

    number: int
    method: str
    path: str
    reference: str | None
    key: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes
    delivery: Delivery = Delivery.ANSWER


@dataclass(frozen=True, slots=True)
class _Running:
    digest: str
    ended: asyncio.Future[Reply]


_INTERNAL_ERROR = orjson.dumps(
    {"error": {"code": "internal", "message": "Something broke. The charge may or may not have been made."}}
)


class Service:
    """Answers calls on /v1/*. One event loop; every decision on a charge happens between two awaits."""

    def __init__(
        self,
        ledger: Ledger,
        director: Director,
        clock: Clock,
        new_id: NewId,
        public_url: str,
        tell: Callable[[str], None] = lambda _event_id: None,
        late_s: float = 2.0,
    ) -> None:
        """`tell` is called with the id of each event that a webhook is to tell, once it is durable. What was
        answered `processing` has its outcome `late_s` later.
        """
        self._ledger = ledger
        self._director = director
        self._clock = clock
        self._new_id = new_id
        self._pages = public_url.rstrip("/") + PAGES
        self._tell = tell
        self._late_s = late_s
        self._running: dict[str, _Running] = {}
        self._completions: set[asyncio.Task[None]] = set()

    async def answer(self, call: Call) -> Reply:
        """Returns when whatever the call did is durable. Raises OperationalError when the journal failed."""
        fate = self._director.fate()
        if fate.delay_s:
            await (
                self._ledger.journal.commit()
            )  # so that a call under way is seen, whatever happens meanwhile
            await asyncio.sleep(fate.delay_s)
        reply = await self._carry_out(call) if fate.executes else Reply(500, _INTERNAL_ERROR)
        if fate.delivery is Delivery.ERROR:
            reply = Reply(500, _INTERNAL_ERROR)
        elif fate.delivery is not Delivery.ANSWER:
            reply = Reply(reply.status, reply.body, fate.delivery)
        if reply.delivery is Delivery.ANSWER:
            self._ledger.call_answered(call.number, reply.status)
        await self._ledger.journal.commit()
        return reply

    def standing(self, charge_id: str) -> Charge:
        """The charge as it is. Raises Refusal when there is none."""
        return self._charge(charge_id)

    def resume(self) -> None:
        """What a run before this one answered `processing` still comes to its outcome."""
        for charge_id in self._ledger.book.processing:
            self._complete_later(charge_id)

    async def visit(self, charge_id: str, *, approves: bool) -> Charge:
        """The payer decided on the page. Durable when it returns; a second visit changes nothing."""
        execution = decide_visit(self._charge(charge_id), approves, self._clock.now_us())
        if execution is not None:
            await self._execute_and_tell(execution)
        return self._charge(charge_id)

    def _complete_later(self, charge_id: str) -> None:
        task = asyncio.create_task(self._complete(charge_id))
        self._completions.add(task)
        task.add_done_callback(self._completions.discard)

    async def _complete(self, charge_id: str) -> None:
        await asyncio.sleep(self._late_s)
        execution = decide_late(self._charge(charge_id), self._clock.now_us())
        if execution is not None:
            with suppress(OperationalError):  # the journal has failed, and the process ends for it
                await self._execute_and_tell(execution)

    async def _execute_and_tell(self, execution: Execution) -> None:
        self._ledger.execute(execution)
        await self._ledger.journal.commit()
        self._tell(event_of(execution)[0])

    async def _carry_out(self, call: Call) -> Reply:
        try:
            if call.method == "GET":
                return Reply(200, orjson.dumps(self._look_up(call)))
            if call.method != "POST":
                raise Refusal(
                    405, "method_not_allowed", f"{call.method} is not answered here; GET and POST are."
                )
            requests.checked_idempotency_key(call.key or None)
            return await self._once(call)
        except ValidationError as error:
            refusal = requests.invalid_request(error)
        except Refusal as error:
            refusal = error
        return Reply(refusal.status, refusal.body())

    def _look_up(self, call: Call) -> object:
        if call.path == _CHARGES:
            if not call.reference:
                raise Refusal(400, "invalid_request", "Name the charge: GET /v1/charges?reference=…")
            return {"data": self._ledger.book.by_reference(call.reference)}
        charge_id, operation = _parsed(call.path)
        if operation is not None:
            raise Refusal(405, "method_not_allowed", "An operation is posted; read its charge.")
        return self._charge(charge_id)

    async def _once(self, call: Call) -> Reply:
        """Executes the first call under a key; every other one, at once or after a year, gets its answer."""
        digest = hashlib.sha256(f"{call.path}\n".encode() + call.body).hexdigest()
        running = self._running.get(call.key)
        known = running or self._ledger.book.answer(call.key)
        if known is not None and known.digest != digest:
            raise Refusal(
                422,
                "idempotency_key_reused",
                "This Idempotency-Key was used with another request; use a new one.",
            )
        if running is not None:
            first = await asyncio.shield(running.ended)
            return Reply(first.status, first.body)
        if isinstance(known, Answer):
            return Reply(known.status, known.body)
        ended: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._running[call.key] = _Running(digest, ended)
        try:
            reply = await self._execute(call, digest)
        except BaseException as error:
            ended.set_exception(error)
            ended.exception()  # heard, also when nobody waits for it
            raise
        finally:
            del self._running[call.key]
        ended.set_result(reply)
        return reply

    async def _execute(self, call: Call, digest: str) -> Reply:
        if call.path == _CHARGES:
            return await self._execute_charge(call, digest)
        execution = self._decide_operation(call, digest)
        answer = self._ledger.execute(execution)
        return Reply(answer.status, answer.body)

    async def _execute_charge(self, call: Call, digest: str) -> Reply:
        order = requests.ChargeOrder.model_validate_json(call.body)
        behaviour = behaviour_of(order.payment_method)
        if self._ledger.times_unavailable(call.key) < behaviour.unavailable_times:
            raise Refusal(
                UNAVAILABLE, "unavailable_no_effect", "Not available now. Nothing was charged; try again."
            )
        if behaviour.delay_ms:
            await self._ledger.journal.commit()
            await asyncio.sleep(behaviour.delay_ms / 1000)
        execution = decide_charge(
            order,
            behaviour.decline_code,
            call.key,
            digest,
            self._clock.now_us(),
            self._new_id,
            action_at=self._pages if behaviour.needs_action else None,
            is_later=behaviour.tells_later,
        )
        answer = self._ledger.execute(execution)
        if behaviour.tells_later:
            self._complete_later(execution.answer["id"])
        return Reply(answer.status, answer.body, behaviour.first_delivery)

    def _decide_operation(self, call: Call, digest: str) -> Execution:
        charge_id, operation = _parsed(call.path)
        if operation is None:
            raise Refusal(
                405, "method_not_allowed", "A charge is read here; post to its capture, cancel or refunds."
            )
        charge = self._charge(charge_id)
        body = call.body or b"{}"
        at_us = self._clock.now_us()
        if operation == "cancel":
            requests.CancelOrder.model_validate_json(body)
            return decide_cancel(charge, call.key, digest, at_us, self._new_id)
        order = requests.AmountOrder.model_validate_json(body)
        decide = decide_capture if operation == "capture" else decide_refund
        return decide(charge, order, call.key, digest, at_us, self._new_id)

    def _charge(self, charge_id: str) -> Charge:
        charge = self._ledger.book.charge(charge_id)
        if charge is None:
            raise requests.not_found(f"charge {charge_id}")
        return charge


def _parsed(path: str) -> tuple[str, str | None]:
    """(charge id, operation or None). Raises Refusal for a path that is none of ours."""
    match = _CHARGE_PATH.fullmatch(path)
    if match is None:
        raise requests.not_found("such path")
    return match[1], match[2]
