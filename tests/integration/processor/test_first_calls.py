"""Payments that intake begins: stored with their first call, sent once, and only where that is safe."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

import processor.first_calls
from processor.dispatch import Dispatcher, DispatchPolicy
from processor.first_calls import Beginnings
from processor.intake import Intake
from processor.patience import Health
from processor.psp.interface import Order, Outcome, PspRequest, Resolution
from processor.storage.database import Pool
from processor.storage.intake import Acceptance, FirstCalls, Ingested, ReceivedWebhook, ingest
from tests.fixtures.changes import accepted_payment, change_record
from tests.integration.processor.asking import find_payment
from tests.integration.processor.conftest import Bench
from tests.integration.processor.psp_calls import counted
from tollgate.errors import OperationalError
from tollgate.v1.payment_pb2 import Payment

NEVER_S = 3600.0  # polling would come too late for any test
CHECK_S = 0.02  # between two looks at a condition, which has a deadline


@dataclass
class Beginning:
    bench: Bench
    intake: Intake
    dispatcher: Dispatcher

    async def take_in(self, *payments: Payment) -> None:
        await self.intake.handle([change_record(payment) for payment in payments])

    async def statuses(self) -> dict[str, str]:
        rows = await self.bench.pool.fetch("SELECT checkout_id, status FROM payments")
        return {row["checkout_id"]: row["status"] for row in rows}

    async def until(self, status: str, count: int) -> None:
        async with asyncio.timeout(20):
            while list((await self.statuses()).values()).count(status) < count:
                await asyncio.sleep(CHECK_S)


@asynccontextmanager
async def beginning(
    bench: Bench, concurrency: int = 8, except_psps: Collection[str] = (), *, claims: bool = True
) -> AsyncIterator[Beginning]:
    """A processor whose dispatcher claims at its start, if at all, and then when it is woken."""
    policy = DispatchPolicy(concurrency, batch_max=100, poll_interval_s=NEVER_S, lease_s=15.0)
    dispatcher = Dispatcher(bench.pool, bench.pipeline, policy, bench.clock, Health())
    beginnings = Beginnings(bench.pipeline, dispatcher, except_psps, 15.0, bench.clock)
    intake = Intake(bench.pool, bench.publisher, bench.clock, lambda: None, beginnings=beginnings)
    task = asyncio.create_task(dispatcher.run()) if claims else None
    try:
        yield Beginning(bench, intake, dispatcher)
    finally:
        dispatcher.stop()
        if task is not None:
            await asyncio.wait_for(task, 10)
        await dispatcher.drain(10)


async def test_a_payment_is_stored_with_its_first_call_and_sent_without_a_claim(bench: Bench) -> None:
    async with beginning(bench) as one:
        await one.take_in(accepted_payment())
        await one.until("succeeded", 1)
    assert len(bench.psp.effects) == 1
    attempt = await bench.pool.fetchrow("SELECT * FROM attempts JOIN psp_requests USING (checkout_id, step)")
    assert attempt is not None
    assert (attempt["fencing_token"], attempt["number"], attempt["outcome"]) == (1, 1, "approved")
    assert (await bench.payment())["risk_score"] == 18
    assert await bench.pool.fetchval("SELECT score FROM risk.assessments") == 18
    told = await bench.pool.fetch("SELECT * FROM outbox ORDER BY id")
    assert [(row["version"], row["event_type"]) for row in told] == [
        (2, "tollgate.payment.processing"),
        (3, "tollgate.payment.succeeded"),
    ]
    assert [row["with_acceptance"] for row in told] == [True, False]
    last = await find_payment(bench.pool, "acme", "checkout-0001")
    assert last == Payment.FromString(told[-1]["snapshot"])  # the row, read anew, is what was told


async def test_what_was_begun_is_nobody_s_to_claim_until_its_lease_ends(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    called, answer = asyncio.Event(), asyncio.Event()
    send = bench.psp.send

    async def held(request: PspRequest, traceparent: str) -> Outcome:
        called.set()
        await answer.wait()
        return await send(request, traceparent)

    monkeypatch.setattr(bench.psp, "send", held)
    async with beginning(bench) as one:
        await one.take_in(accepted_payment())
        async with asyncio.timeout(10):
            await called.wait()
        assert await bench.run_due() == 0
        answer.set()
        await one.until("succeeded", 1)
    assert len(bench.psp.effects) == 1


async def test_of_two_contents_under_one_id_the_first_is_stored_and_sent(bench: Bench) -> None:
    async with beginning(bench) as one:
        await one.take_in(
            accepted_payment(amount=1111), accepted_payment(amount=2222), accepted_payment("checkout-0002")
        )
        await one.until("succeeded", 2)
        await one.take_in(accepted_payment(amount=3333))
    sent = [json.loads(effect.body)["amount"] for effect in bench.psp.effects.values()]
    assert sorted(sent) == [1111, 1234]
    assert await bench.pool.fetchval("SELECT count(*) FROM payment_conflicts") == 2


@pytest.mark.parametrize("names", ["customer", "method"])
async def test_where_the_first_can_t_be_begun_no_other_content_is(bench: Bench, names: str) -> None:
    first = accepted_payment(amount=1111)
    if names == "customer":
        first.customer_id = "cus_" + "0" * 24
    else:
        first.payment_method = "pmt_" + "0" * 24
    async with beginning(bench, claims=False) as one:
        await one.take_in(first, accepted_payment(amount=2222))
        assert await one.statuses() == {"checkout-0001": "pending"}
    assert (await bench.payment())["amount"] == 1111
    assert not bench.psp.sent


async def test_what_must_wait_for_somebody_is_not_begun(bench: Bench) -> None:
    expired = accepted_payment("checkout-expired")
    expired.expires_at_us = bench.clock.now_us()
    declined = accepted_payment("checkout-declined", amount=99_999_999_999)
    elsewhere = accepted_payment("checkout-elsewhere")
    elsewhere.psp = "nobody"
    async with beginning(bench, claims=False) as one:
        await one.take_in(expired, declined, elsewhere)
        assert set((await one.statuses()).values()) == {"pending"}
    async with beginning(bench, except_psps=[bench.psp.name], claims=False) as one:
        await one.take_in(accepted_payment("checkout-rationed"))
        assert set((await one.statuses()).values()) == {"pending"}
    bench.psp.resolution = Resolution.WEBHOOK
    async with beginning(bench, claims=False) as one:
        await one.take_in(accepted_payment("checkout-webhook"))
        assert set((await one.statuses()).values()) == {"pending"}
    assert not bench.psp.sent


async def test_a_batch_larger_than_the_room_is_stored_as_room_comes_and_no_more_is_under_way(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counted(bench, monkeypatch)
    async with beginning(bench, concurrency=8) as one:
        await one.take_in(*(accepted_payment(f"checkout-{n:04d}") for n in range(60)))
        await one.until("succeeded", 60)
    assert 1 <= calls.most <= 8
    assert await bench.pool.fetchval("SELECT max(fencing_token) FROM attempts") == 1


async def test_a_psp_that_hangs_keeps_no_payment_out_of_postgres(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = asyncio.Event()
    send = bench.psp.send

    async def held(request: PspRequest, traceparent: str) -> Outcome:
        await answer.wait()
        return await send(request, traceparent)

    monkeypatch.setattr(bench.psp, "send", held)
    monkeypatch.setattr(processor.first_calls, "PATIENCE_S", 0.0)
    async with beginning(bench, concurrency=2, claims=False) as one:
        await one.take_in(*(accepted_payment(f"checkout-{n:04d}") for n in range(5)))
        assert sorted((await one.statuses()).values()) == ["pending"] * 3 + ["processing"] * 2
        answer.set()
        await one.until("succeeded", 2)
    assert await bench.run_due() == 3
    assert len(bench.psp.effects) == 5


async def test_what_waits_for_a_claim_comes_before_what_comes_new(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor.first_calls, "PATIENCE_S", NEVER_S)
    send, order, begun = bench.psp.send, list[int](), asyncio.Event()

    async def noted(request: PspRequest, traceparent: str) -> Outcome:
        order.append(json.loads(request.body)["amount"])
        begun.set()
        return await send(request, traceparent)

    await bench.take_in(*(change_record(accepted_payment(f"checkout-old{n:02d}")) for n in range(20)))
    monkeypatch.setattr(bench.psp, "send", noted)
    async with beginning(bench, concurrency=2) as one:
        await asyncio.wait_for(begun.wait(), 10)
        await one.take_in(accepted_payment("checkout-new", amount=999))
        await one.until("succeeded", 21)
    assert order == [1234] * 20 + [999]


async def test_where_postgres_answer_is_lost_nothing_is_sent_before_the_lease_ends_and_then_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unheard(
        pool: Pool,
        acceptances: Sequence[Acceptance],
        webhooks: Sequence[ReceivedWebhook],
        now_us: int,
        first_calls: FirstCalls,
    ) -> Ingested:
        await ingest(pool, acceptances, webhooks, now_us, first_calls)
        raise OperationalError("The connection is gone.")

    payments = [accepted_payment(f"checkout-{n:04d}") for n in range(8)]
    async with beginning(bench, concurrency=8) as one:
        with monkeypatch.context() as patch:
            patch.setattr("processor.intake.ingest", unheard)
            with pytest.raises(OperationalError):
                await one.take_in(*payments)
        await one.take_in(*payments)  # as the consumer does
        assert set((await one.statuses()).values()) == {"processing"}
        assert not bench.psp.sent
        await bench.let_leases_end()
        one.dispatcher.wake()  # there is room for all: none was lost
        await one.until("succeeded", 8)
    assert len(bench.psp.effects) == 8
    attempts = await bench.pool.fetch("SELECT count(*) AS calls FROM attempts GROUP BY checkout_id")
    assert {row["calls"] for row in attempts} == {2}  # the second resolves the first


async def test_a_request_that_postgres_refuses_costs_the_payment_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, broken = bench.psp.build, True

    def poisoned(order: Order, step: str, idempotency_key: str) -> PspRequest:
        request = build(order, step, idempotency_key)
        is_poisoned = broken and order.payment.checkout_id == "checkout-0002"
        return replace(request, path="/\0") if is_poisoned else request

    monkeypatch.setattr(bench.psp, "build", poisoned)
    async with beginning(bench, claims=False) as one:
        await one.take_in(*(accepted_payment(f"checkout-{n:04d}") for n in range(4)))
        assert set((await one.statuses()).values()) == {"pending"}
        broken = False
    assert await bench.run_due() == 4
    assert set((await one.statuses()).values()) == {"succeeded"}
    assert not bench.publisher.produced  # nothing was set aside
