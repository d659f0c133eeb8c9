"""The simulation's Postgres and a real one: the same scenario, drawn from a seed, tells the same on both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from random import Random
from typing import Any, Final, cast

import pytest

from processor.changes import parse
from processor.operation import Answer, CallKind, Claim
from processor.operation_request import Accepted, Known, Refused, Wanted
from processor.outcome import Decision, next_version
from processor.psp.interface import OperationKind, PspRequest
from processor.storage.attempts import NewAttempt, store_attempts
from processor.storage.budgets import give_back, withdraw
from processor.storage.database import Connection, Pool
from processor.storage.intake import Acceptance, ingest
from processor.storage.operations import Answered, Conclusion, claim, conclude
from processor.storage.outbox import mark_published, mark_resent, owed_resends, unpublished
from processor.storage.payments import SLICES, find_payments
from processor.storage.requests import request_operation
from processor.storage.turns import claim_in_turn
from tests.fixtures.changes import NOW_US, accepted_payment, change_record
from tests.simulation.loop import VirtualLoop
from tests.simulation.postgres import server as simulated
from tests.simulation.postgres.of_sessions import Session, statements
from tests.simulation.trace import Trace
from tollgate.errors import RejectedInput
from tollgate.status import AUTHORIZED, FAILED, SUCCEEDED
from tollgate.v1.payment_pb2 import Capture, Payment

STEPS: Final = 60
IDS: Final = [f"checkout-{number:04}" for number in range(4)]
LEASE_S: Final = 3600.0


class Scenario:
    """Calls of processor/storage, and what each came to, without what hangs on the clock."""

    def __init__(
        self, seed: int, pool: Pool, session: Connection, end_leases: Callable[[], Awaitable[object]]
    ) -> None:
        self.random = Random(seed)
        self.pool, self.session, self.end_leases = pool, session, end_leases
        self.told: list[str] = []
        self.claims: list[Claim] = []
        self.attempts: list[NewAttempt] = []
        self.sequence = 0
        self.now_us = NOW_US

    async def play(self) -> list[str]:
        acts = [
            self.take_in,
            self.claim,
            self.attempt,
            self.conclude,
            self.ask,
            self.relay,
            self.undo,
            self.look,
        ]
        for _ in range(STEPS):
            act = self.random.choice(acts)
            self.now_us += 1_000
            try:
                self.told.append(f"{act.__name__}: {await act()}")
            except RejectedInput as error:
                self.told.append(f"{act.__name__}: {type(error).__name__}")
        return self.told

    async def take_in(self) -> object:
        items = []
        for _ in range(self.random.randint(1, 3)):
            self.sequence += self.random.randint(0, 1)
            capture = self.random.choice((Capture.CAPTURE_AUTOMATIC, Capture.CAPTURE_MANUAL))
            content = self.random.choice(("", "", "other"))
            payment = accepted_payment(self.random.choice(IDS), capture=capture, content=content)
            record = change_record(payment, shard=self.random.randint(0, 1), sequence=self.sequence + 1)
            item = parse(record, self.now_us)
            assert isinstance(item, Acceptance)
            items.append(item)
        ingested = await ingest(self.pool, items, [], self.now_us)
        return ingested.fresh, ingested.repeated, sorted(ingested.conflicts)

    async def claim(self) -> object:
        if self.random.random() < 0.4:
            await self.end_leases()
        if self.random.random() < 0.3:
            found = await claim_in_turn(self.pool, "simulator", "", 50, LEASE_S, self.now_us, 0.0)
        else:
            found = await claim(self.pool, 50, LEASE_S, self.now_us, 0.0)
        self.claims = sorted([*self.claims, *found], key=lambda one: (*one.key, one.fencing_token))[-8:]
        return sorted(map(_claim_told, found))

    async def attempt(self) -> object:
        if not self.claims:
            return None
        chosen = self.random.choice(self.claims)
        number = len(chosen.steps[-1].calls) + 1 if chosen.steps else 1
        step = str(chosen.kind)
        request = PspRequest("POST", "/x", f"key-{chosen.key}", b"{}")
        made = NewAttempt(chosen, step, "simulator", request, CallKind.SEND, number)
        held = await store_attempts(self.pool, [made], LEASE_S, self.now_us)
        if held:
            self.attempts.append(made)
        return sorted(held)

    async def conclude(self) -> object:
        if not self.attempts:
            return None
        made = self.random.choice(self.attempts[-4:])
        kind = self.random.choice(("again", "fail", "expire", "succeed", "park"))
        decide = partial(_decide, kind, made.claim, self.now_us)
        answer = self.random.choice((Answer.APPROVED, Answer.UNKNOWN, Answer.RETRYABLE))
        evidence = self.random.choice(('{"a": 1}', '{"reference": "", "captured": false}'))
        answered = Answered(
            made.step, made.number, self.now_us, answer, evidence, self.random.choice(("", "r"))
        )
        done = await conclude(self.pool, [Conclusion(made.claim, decide, answered)], self.now_us)
        return [
            (item.claim.key, None if decision is None else (decision.settled, decision.anomaly))
            for item, decision in done
        ]

    async def ask(self) -> object:
        kind = self.random.choice((OperationKind.CAPTURE, OperationKind.CANCEL, OperationKind.REFUND))
        amount = self.random.choice((None, 1, 500, 5000))
        wanted = Wanted(kind, amount, "", f"{kind}-{self.random.randint(0, 2)}")
        new_id = f"op_{self.random.getrandbits(32):08x}"
        match await request_operation(
            self.pool, "acme", self.random.choice(IDS), wanted, new_id, self.now_us
        ):
            case Accepted(payment, operation):
                return "accepted", operation.id, operation.amount, payment.version
            case Known(operation):
                return "known", operation.id, operation.status
            case Refused(code):
                return "refused", str(code)

    async def relay(self) -> object:
        held_since_us = self.now_us - self.random.choice((0, 10_000))
        entries = await unpublished(self.session, range(SLICES), 100, held_since_us)
        resends = await owed_resends(self.session, range(SLICES), 100)
        told = [(e.checkout_id, e.version, e.event_type, e.operation_id, sorted(e.shards)) for e in entries]
        if entries and self.random.random() < 0.7:
            await self._mark([entry.id for entry in entries[:3]])
        if resends and self.random.random() < 0.5:
            await mark_resent(self.session, resends)
        return told, sorted((r.payment.checkout_id, r.payment.version, r.shard) for r in resends)

    async def _mark(self, ids: list[int]) -> None:
        """Taken back now and then: they are still to be told, in their order."""
        with suppress(InterruptedError):
            async with self.session.transaction():
                await mark_published(self.session, ids, self.now_us)
                if self.random.random() < 0.3:
                    raise InterruptedError

    async def undo(self) -> object:
        if self.attempts and self.random.random() < 0.5:
            await withdraw(self.pool, self.attempts.pop())
        elif self.claims:
            await give_back(self.pool, [self.random.choice(self.claims)])
        return None

    async def look(self) -> object:
        found = await find_payments(self.pool, [("acme", checkout_id) for checkout_id in IDS])
        return sorted(one.SerializeToString(deterministic=True).hex() for one in found)


def _claim_told(one: Claim) -> tuple[object, ...]:
    steps = tuple(
        (s.name, tuple((str(c.kind), str(c.answer)) for c in s.calls), s.reference) for s in one.steps
    )
    return (*one.key, one.fencing_token, str(one.kind), one.amount, one.payment.version, steps)


def _decide(kind: str, claim: Claim, now_us: int, payment: Payment) -> Decision:
    """Legal or not: the database has its own word."""
    if kind == "again":
        return Decision(claim_after_s=0.0)
    if kind == "park":
        return Decision(parked_reason="so drawn")
    if claim.kind is not OperationKind.PAYMENT:
        return Decision(payment=next_version(payment, payment.status, now_us), settled=kind == "succeed")
    if kind in ("fail", "expire"):
        following = next_version(payment, FAILED, now_us)
        following.failure.code = "a" if kind == "fail" else "action_expired"
        return Decision(payment=following, settled=False, failure=("a", "b"))
    automatic = payment.capture == Capture.CAPTURE_AUTOMATIC
    following = next_version(payment, SUCCEEDED if automatic else AUTHORIZED, now_us)
    following.captured_amount = payment.amount if automatic else 0
    return Decision(
        payment=following, settled=True if automatic else None, claim_after_s=None if automatic else 0.0
    )


def on_the_simulated_one(seed: int) -> list[str]:
    loop = VirtualLoop(Random(seed))
    server = simulated.Server(loop, Random(seed), Trace(), statements())
    process = loop.process("test")

    async def end_leases() -> None:
        for key, row in server.tables.operations.items():
            if row["claimable_at"] is not None:
                server.tables.operations[key]["claimable_at"] = server.process.now_us()

    async def play() -> list[str]:
        pool, session = cast(Any, simulated.Pool(server)), cast(Any, Session(server))
        return await Scenario(seed, pool, session, end_leases).play()

    playing = process.spawn(play())
    loop.run_for(60_000_000)
    told = playing.result()
    loop.close()
    return told


# In 45 and 48 approvals come late, of what has failed and of what was voided.
@pytest.mark.parametrize("seed", [*range(18), 45, 48])
async def test_it_tells_what_a_real_one_tells(seed: int, pool: Pool) -> None:
    async def end_leases() -> None:
        await pool.execute("UPDATE operations SET claimable_at = now() WHERE claimable_at IS NOT NULL")

    async with pool.acquire() as session:
        real = await Scenario(seed, pool, session, end_leases).play()
    same = await asyncio.to_thread(on_the_simulated_one, seed)
    for number, (one, other) in enumerate(zip(real, same, strict=True)):
        assert one == other, f"seed {seed}, call {number}"
    assert len({told.partition(":")[0] for told in real}) > 5
