"""Clients of the whole stack through its front door, who behave as the contract asks and write down every
answer.

Open loop: a checkout begins at its time, whoever waits; only past `IN_FLIGHT_MAX` shoppers at once none
begins. No answer, a 5xx, 429 or 409 `not_yet_processed` means: again, with the same id and content, until it
is answered or the shopper's patience is over. What the answers are worth is judged by `tollgate verify`; here
only what no client should ever be told is kept, see `_unheard_of`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import aiohttp
import orjson

from tests.fault.storm.wishes import Again, Payer, Wish
from tests.fixtures.kept_connections import KeptConnections, NoAnswer, Reply
from tollgate.client_log import ClientLog
from tollgate.clock import SystemClock

IN_FLIGHT_MAX: Final = 400
_POLL_S: Final = 2.0  # as Retry-After says
_AGAIN_S: Final = (0.2, 2.0)  # the first wait and the longest
_PATIENCE_S: Final = 120.0
_STOOD_STILL_S: Final = 0.5
_PAGE_S: Final = 5.0
_OPEN: Final = frozenset({"pending", "processing"})
_JSON: Final = {"Content-Type": "application/json"}


@dataclass
class Told:
    """What the load came to. Seconds of `waits` are those of accepted payments, as a client felt them."""

    payments: int = 0
    held_back: int = 0  # not begun, because too many were under way
    accepted: dict[str, int] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)
    waits: list[float] = field(default_factory=list)
    pages: int = 0
    gave_up: list[str] = field(default_factory=list)
    unheard_of: list[str] = field(default_factory=list)


class Shoppers:
    """`per_second` checkouts begin until `end` is called; `run` returns when the last shopper has gone."""

    def __init__(
        self, client: KeptConnections, log: ClientLog, wishes: Iterator[Wish], per_second: float, seed: int
    ) -> None:
        self.told = Told()
        self._client = client
        self._log = log
        self._wishes = wishes
        self._per_second = per_second
        self._random = Random(f"shoppers {seed}")
        self._clock = SystemClock()
        self._ended = asyncio.Event()
        self._shopping: set[asyncio.Task[None]] = set()
        self.under_way = 0  # requests without an answer yet

    async def run(self) -> None:
        due = time.monotonic()
        async with asyncio.TaskGroup() as group:
            while not self._ended.is_set():
                due = max(due + 1 / self._per_second, time.monotonic() - _STOOD_STILL_S)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._ended.wait(), due - time.monotonic())
                    return
                self._begin(group)

    def end(self) -> None:
        self._ended.set()

    def _begin(self, group: asyncio.TaskGroup) -> None:
        if len(self._shopping) >= IN_FLIGHT_MAX:
            self.told.held_back += 1
            return
        self.told.payments += 1
        task = group.create_task(self._shop(next(self._wishes)))
        self._shopping.add(task)
        task.add_done_callback(self._shopping.discard)

    async def _shop(self, wish: Wish) -> None:
        """One payment from its checkout to where nothing more is wanted of it."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._pay(wish)
                payment = await self._watch(wish, _OPEN)
                if payment["status"] == "requires_action" and await self._on_the_page(wish, payment):
                    payment = await self._watch(wish, _OPEN | {"requires_action"})
                if wish.changes_description:
                    await self._change(wish)
                if payment["status"] == "authorized" and wish.ending is not None:
                    payment = await self._end_authorization(wish)
                if payment["status"] == "succeeded":
                    await asyncio.gather(
                        *(
                            self._operate(wish, "refunds", f"refund-{n}", amount)
                            for n, amount in enumerate(wish.refunds)
                        )
                    )
                await self._send_again(wish)
        except TimeoutError:
            self.told.gave_up.append(wish.checkout_id)

    async def _pay(self, wish: Wish) -> None:
        began = time.monotonic()
        reply = await self._until_answered(wish, "POST", "/v1/payments", wish.body)
        if reply.status not in (200, 202):
            self.told.unheard_of.append(f"{wish.checkout_id}: its first POST: {reply.status} {reply.code}")
        self.told.waits.append(time.monotonic() - began)
        self.told.accepted[wish.checkout_id] = wish.body["amount"]

    async def _watch(self, wish: Wish, while_in: frozenset[str] | set[str]) -> dict[str, Any]:
        """Polled every 2 s while it is in one of these."""
        path = f"/v1/payments/{wish.checkout_id}"
        while True:
            payment: dict[str, Any] = (await self._until_answered(wish, "GET", path)).json
            if payment["status"] not in while_in:
                return payment
            await asyncio.sleep(_POLL_S)  # as a client does; so below

    async def _on_the_page(self, wish: Wish, payment: dict[str, Any]) -> bool:
        """Whether the payer came. A PSP that is away is tried again, by the payer's browser."""
        if wish.payer is Payer.NEVER_COMES:
            return False
        outcome = "decline" if wish.payer is Payer.DECLINES else "approve"
        timeout = aiohttp.ClientTimeout(total=_PAGE_S)
        while True:
            with suppress(aiohttp.ClientError, TimeoutError, OSError):
                async with (
                    aiohttp.ClientSession(timeout=timeout) as browser,
                    browser.post(payment["next_action"]["url"], data={"outcome": outcome}) as answer,
                ):
                    if answer.status == 200:
                        self.told.pages += 1
                        return True
            await asyncio.sleep(_POLL_S)

    async def _change(self, wish: Wish) -> None:
        """With the version that was read; when it has changed since, it is read again, at most so often."""
        path = f"/v1/payments/{wish.checkout_id}"
        for _ in range(5):
            read = await self._until_answered(wish, "GET", path)
            headers = {"If-Match": read.header("etag")}
            body = {"description": f"order {wish.checkout_id}"}
            if (await self._until_answered(wish, "PATCH", path, body, headers)).status != 412:
                return

    async def _end_authorization(self, wish: Wish) -> dict[str, Any]:
        if wish.ending:
            await self._operate(wish, "capture", "capture", wish.ending)
        else:
            await self._operate(wish, "cancel", "cancel", None)
        return await self._watch(wish, _OPEN)

    async def _operate(self, wish: Wish, what: str, key: str, amount: int | None) -> None:
        path = f"/v1/payments/{wish.checkout_id}/{what}"
        body = {} if amount is None else {"amount": amount}
        asked = await self._until_answered(wish, "POST", path, body, {"Idempotency-Key": key})
        if asked.status not in (200, 202):
            return  # 409, 422: refused, and why
        operation = asked.json
        while operation["status"] == "pending":
            await asyncio.sleep(_POLL_S)
            found = await self._until_answered(
                wish, "GET", f"/v1/payments/{wish.checkout_id}/operations/{operation['id']}"
            )
            operation = found.json

    async def _send_again(self, wish: Wish) -> None:
        if wish.again is Again.THE_SAME:
            await self._until_answered(wish, "POST", "/v1/payments", wish.body)
        elif wish.again is Again.ANOTHER:
            await self._until_answered(wish, "POST", "/v1/payments", wish.other_body())

    async def _until_answered(
        self,
        wish: Wish,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        wait_s = _AGAIN_S[0]
        while True:
            reply = await self._ask(wish, method, path, body, headers or {})
            if reply is not None and not _means_again(reply):
                if _unheard_of(method, path, reply):
                    self.told.unheard_of.append(
                        f"{wish.checkout_id}: {method} {path}: {reply.status} {reply.code}"
                    )
                return reply
            await asyncio.sleep(wait_s * self._random.uniform(0.5, 1))
            wait_s = min(2 * wait_s, _AGAIN_S[1])

    async def _ask(
        self, wish: Wish, method: str, path: str, body: dict[str, Any] | None, headers: dict[str, str]
    ) -> Reply | None:
        """None: no answer. Either is written down."""
        named = dict(headers)
        if (method, path) == ("POST", "/v1/payments"):
            named["X-PAYMENT-CHECKOUT-ID"] = wish.checkout_id
        if body is not None:
            named |= _JSON
        sent_us = self._clock.now_us()
        self.under_way += 1
        reply: Reply | None = None
        try:
            reply = await self._client.request(
                method, path, named, b"" if body is None else orjson.dumps(body)
            )
        except NoAnswer:
            pass
        finally:  # a shopper whose patience ended has had no answer either
            self.under_way -= 1
            self._log.write(
                sent_us=sent_us,
                at_us=self._clock.now_us(),
                method=method,
                path=path,
                status=reply.status if reply else 0,
                body=reply.body if reply else b"",
                checkout_id=wish.checkout_id,
                idempotency_key=headers.get("Idempotency-Key", ""),
                request=body,
            )
        what = f"{method} {_shape(path)}"
        self.told.answers[
            f"{what} {reply.status} {reply.code}".strip() if reply else f"{what} no answer"
        ] += 1
        return reply


def _means_again(reply: Reply) -> bool:
    return (
        reply.status >= 500
        or reply.status == 429
        or (reply.status == 409 and reply.code == "not_yet_processed")
    )


def _unheard_of(method: str, path: str, reply: Reply) -> bool:
    """What no client of an accepted payment, who sends nothing wrong, is ever told: it is not there, it is
    not allowed, it is not valid.
    """
    return reply.status in (400, 401, 403, 404, 405, 413, 415, 428) or (
        method == "GET" and reply.status != 200
    )


def _shape(path: str) -> str:
    """The route without its ids."""
    steps = path.split("/")[3:]
    return "/".join(["payments", *("{id}" if n in (0, 2) else step for n, step in enumerate(steps))])
