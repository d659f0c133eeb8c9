"""A processor: its parts put together as processor/bootstrap.py does, over the simulated adapters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final, cast

from processor.budget import BudgetPolicy, SharedBudget
from processor.commit import Committed, Committer
from processor.dispatch import Dispatcher, DispatchPolicy
from processor.first_calls import Beginnings
from processor.inbox import Inbox, PspWebhooks
from processor.intake import Intake
from processor.judgement import Judge
from processor.ledger import LedgerService
from processor.outcome import RetryPolicy
from processor.patience import Health
from processor.pipeline import Pipeline, Timing
from processor.psp.simulator_webhook import read_simulator_webhook
from processor.rationed import RationedDispatcher
from processor.relay import Relay, RelayPolicy
from processor.risk import Assessment
from processor.storage.database import Connection, Pool, translated
from tests.simulation.kafka import Broker, GroupConsumer
from tests.simulation.loop import VirtualLoop
from tests.simulation.postgres import server as postgres
from tests.simulation.postgres.of_sessions import Session
from tests.simulation.producers import SimPublishing
from tests.simulation.psp import TIMEOUT_S, SimulatedPsp
from tests.simulation.shard import PSP
from tollgate.v1.payment_pb2 import Payment

LEASE_S: Final = 5.0
BATCH_MAX: Final = 16
SENDS_MAX: Final = 6  # used up while a PSP is away for seconds
RISKY: Final = 666  # an amount that the rules decline
_POLL_S: Final = 0.5
_RELAY_POLL_S: Final = 1.5  # it is woken; the rest is what others left


class Rules:
    """processor.risk.RiskAssessor: the amount alone decides, and some of them have to be asked about."""

    async def assess(self, payment: Payment) -> Assessment:
        return Assessment(payment.amount % 100, (), declined=payment.amount == RISKY)

    def assess_at_once(self, payment: Payment) -> Assessment | None:
        is_asked = payment.amount % 4 == 0
        return None if is_asked else Assessment(payment.amount % 100, (), declined=payment.amount == RISKY)


@dataclass
class Outside:
    """What all processors share."""

    random: Random
    broker: Broker
    server: postgres.Server
    psp: Callable[[], SimulatedPsp]
    owner_of: Callable[[str], int | None]
    per_second: float | None


class SimProcessor:
    """One life of a processor."""

    def __init__(self, loop: VirtualLoop, number: int, outside: Outside, skew_us: int) -> None:
        self.process = loop.process(f"processor-{number}", skew_us)
        self.process.run(self._build, outside)

    def _build(self, outside: Outside) -> None:
        process, random, health = self.process, outside.random, Health()
        pool = cast(Pool, postgres.Pool(outside.server))
        self.publishing = SimPublishing(outside.broker)
        adapter = outside.psp()

        async def open_session() -> Connection:
            with translated("connecting"):
                await postgres.arrive(outside.server)
                return cast(Connection, Session(outside.server))

        relay_policy = RelayPolicy(50, _RELAY_POLL_S)
        relay = Relay(open_session, self.publishing, outside.owner_of, relay_policy, process, health)

        def on_committed(committed: Committed) -> None:
            relay.wake()
            for _conclusion, decision in committed:
                if decision and decision.claim_after_s is not None:
                    dispatcher.wake_in(decision.claim_after_s)

        committer = Committer(pool, process, health, on_committed)
        judge = Judge(RetryPolicy(sends_max=SENDS_MAX), process, random.random, lambda _psp: adapter.plan)
        pipeline = Pipeline(
            pool=pool,
            committer=committer,
            adapters={PSP: adapter},
            assessor=Rules(),
            judge=judge,
            timing=Timing(LEASE_S, TIMEOUT_S),
            clock=process,
            health=health,
        )
        budgeted = (PSP,) if outside.per_second else ()
        policy = DispatchPolicy(16, 8, _POLL_S, LEASE_S, budgeted)
        dispatcher = Dispatcher(pool, pipeline, policy, process, health)
        lanes: list[Dispatcher | RationedDispatcher] = [dispatcher]
        if outside.per_second:
            budget = SharedBudget(pool, PSP, BudgetPolicy(outside.per_second, LEASE_S / 2), process)
            lanes.append(RationedDispatcher(pool, pipeline, budget, policy, process, health))
        webhooks = {PSP: PspWebhooks(read_simulator_webhook, adapter.plan)}
        inbox = Inbox(pool, webhooks, process, health, on_committed)

        def on_stored() -> None:
            for lane in lanes:
                lane.wake()
            relay.wake()

        self.ledger = LedgerService(
            pool, outside.owner_of, process, on_stored, lambda: f"op_{random.getrandbits(64):016x}"
        )
        beginnings = Beginnings(pipeline, dispatcher, budgeted, LEASE_S, process)
        intake = Intake(pool, self.publishing, process, on_stored, inbox.wake, beginnings, relay.wake)
        consumer = GroupConsumer(outside.broker, intake.handle, BATCH_MAX)
        for part in (committer, relay, *lanes, inbox, consumer):
            process.spawn(part.run())
