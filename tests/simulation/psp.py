"""The PSP: the simulator's own service over a ledger in memory, and our adapter on the simulated network.

What is charged is decided by the code of `tollgate/local/simulator`, what an answer means by the adapter's
own `interpret`. One thing is stricter than at the real simulator: a key is forgotten after its retention, as
PSPs do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from processor.psp.interface import Outcome, PspPlan, PspRequest, PspTerms, Resolution, Retryable, Unknown
from processor.psp.simulator import PLAN, SimulatorPsp, interpret, interpret_standing
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.network import Lost, Network, Refused
from tests.simulation.trace import Trace
from tollgate.local.simulator.behaviour import Delivery
from tollgate.local.simulator.charges import Answer, Book, Effect, Execution
from tollgate.local.simulator.events import event_of
from tollgate.local.simulator.requests import Refusal
from tollgate.local.simulator.scenario import Director, Scenario
from tollgate.local.simulator.service import Call, Reply, Service
from tollgate.v1.payment_pb2 import Payment

TIMEOUT_S: Final = 2.0
MARGIN_S: Final = 3600.0  # processor.operation.RETENTION_MARGIN_S: a replay is sent so long before the end
REPLAYED_FOR_S: Final = 30.0
KEY_RETENTION_S: Final = MARGIN_S + REPLAYED_FOR_S
# What the PSP really keeps is the last moment at which a replay may still be under way.
_KEPT_US: Final = round((REPLAYED_FOR_S + 3 * TIMEOUT_S) * 1e6)
_TELL_AGAIN_S: Final = 0.5

PLAN_HERE: Final = PspPlan(
    steps=PLAN.steps,
    terms={step: PspTerms(Resolution.REPLAY, KEY_RETENTION_S) for step in PLAN.terms},
    authorization_window_s=PLAN.authorization_window_s,
)


class _NoJournal:
    """What is entered is durable at once."""

    async def commit(self) -> None:
        await asyncio.sleep(0)


@dataclass
class Witness:
    """The simulator's Ledger as its service uses it, in memory, with the effects as they came."""

    now_us: Callable[[], int]
    journal: _NoJournal = field(default_factory=_NoJournal)
    book: Book = field(default_factory=Book)
    effects: list[Effect] = field(default_factory=list)
    untold: dict[str, bytes] = field(default_factory=dict)
    first_us: dict[str, int] = field(default_factory=dict)
    unavailable: dict[str, int] = field(default_factory=dict)
    on_effect: Callable[[Effect], None] = lambda _effect: None

    def execute(self, execution: Execution) -> Answer:
        self.first_us.setdefault(execution.key, self.now_us())
        if execution.effect is not None:
            self.effects.append(execution.effect)
            self.on_effect(execution.effect)
        if execution.tells:
            event_id, body = event_of(execution)
            self.untold[event_id] = body
        return self.book.apply(execution)

    def call_answered(self, number: int, status: int) -> None:
        """Nobody reads the calls here."""

    def times_unavailable(self, key: str) -> int:
        times = self.unavailable.get(key, 0)
        self.unavailable[key] = times + 1
        return times

    def forget_old_keys(self) -> None:
        before_us = self.now_us() - _KEPT_US
        for key in [key for key, at_us in self.first_us.items() if at_us < before_us]:
            self.book._answers.pop(key, None)
            del self.first_us[key]


class Psp:
    """The PSP's process. `tell` delivers a webhook and says whether it was taken."""

    def __init__(
        self, loop: VirtualLoop, random: Random, trace: Trace, tell: Callable[[str, bytes], Any]
    ) -> None:
        self.loop = loop
        self.trace = trace
        self.process = loop.process("psp")
        self.witness = Witness(self.process.now_us)
        self.director = Director(random)
        self.calls = 0
        self.is_away = False  # no connection comes to stand
        self._ids = 0
        self._tell = tell
        self._random = random
        self.service = self.process.run(self._build)

    def _build(self) -> Service:
        witness: Any = self.witness
        return Service(witness, self.director, self.process, self._new_id, "http://psp", self._told)

    def _new_id(self, prefix: str) -> str:
        self._ids += 1
        return f"{prefix}_{self._ids:06}"

    def set(self, **knobs: Any) -> None:
        self.director.scenario = Scenario(**(self.director.scenario.model_dump() | knobs))

    async def answer(self, request: PspRequest, method: str) -> Reply | None:
        """None: the connection is closed without an effect. Raises what the network does."""
        self.calls += 1
        self.trace.add(self.loop.now_us, "psp", f"{method} {request.path} {request.idempotency_key[:8]}")
        if self.director.scenario.down:
            return None
        self.witness.forget_old_keys()
        path = request.path
        call = Call(self.calls, method, path, None, request.idempotency_key, request.body)
        return await self.service.answer(call)

    def visit(self, charge_id: str, *, approves: bool) -> None:
        async def come() -> None:
            try:
                await self.service.visit(charge_id, approves=approves)
            except Refusal:
                return

        self.process.spawn(come())

    def _told(self, event_id: str) -> None:
        asyncio.get_running_loop().create_task(self._deliver(event_id))

    async def _deliver(self, event_id: str) -> None:
        """Until it is taken, and now and then once more."""
        body = self.witness.untold[event_id]
        while not await self._tell(event_id, body):
            await asyncio.sleep(_TELL_AGAIN_S)
        if self._random.random() < 0.2:
            await asyncio.sleep(self._random.random() * 3)
            await self._tell(event_id, body)
        self.witness.untold.pop(event_id, None)


class SimulatedPsp(SimulatorPsp):
    """The simulator's adapter; only its connections are others. `on_call` sees every call as it goes out."""

    plan = PLAN_HERE

    def __init__(self, network: Network, psp: Psp, on_call: Callable[[PspRequest], None]) -> None:
        self._network = network
        self._psp = psp
        self._on_call = on_call

    async def send(self, request: PspRequest, traceparent: str) -> Outcome:
        self._on_call(request)
        try:
            reply = await self._call(request, request.method)
        except Refused:
            return Retryable("no connection")
        except Lost:
            return Unknown("no whole answer")
        if reply is None:
            return Unknown("no whole answer: it was closed")
        return interpret(request, reply.status, None, reply.body)

    async def ask(self, payment: Payment) -> Outcome:
        path = f"/v1/charges/{payment.psp_reference}"
        request = PspRequest("GET", path, "", b"")
        self._on_call(request)
        try:
            reply = await self._call(request, "GET")
        except (Refused, Lost):
            return Unknown("no whole answer", payment.psp_reference)
        if reply is None or reply.status != 200:
            return Unknown("the PSP did not answer", payment.psp_reference)
        return interpret_standing(payment, reply.body)

    async def _call(self, request: PspRequest, method: str) -> Reply | None:
        reply = await self._network.call(
            self._listening, lambda: self._psp.answer(request, method), TIMEOUT_S
        )
        if reply is not None and reply.delivery is Delivery.LOST:
            await asyncio.sleep(TIMEOUT_S / 2)
            raise Lost
        if reply is not None and reply.delivery is Delivery.RESET:
            raise Lost
        return reply

    def _listening(self) -> Process | None:
        return None if self._psp.is_away else self._psp.process

    async def close(self) -> None:
        """Nothing is open."""
