"""The dispatcher on a real Postgres: woken, bounded, and ended without leaving work half done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from processor.dispatch import Dispatcher, DispatchPolicy
from processor.patience import Health
from processor.psp.interface import Order, Outcome, PspRequest
from tests.fixtures.changes import accepted_payment, change_record
from tests.integration.processor.conftest import Bench
from tests.integration.processor.psp_calls import counted

POLL_S = 0.02  # between two looks at a condition, which has a deadline
NEVER_S = 3600.0  # polling would come too late for any test: only a wake-up helps


@asynccontextmanager
async def dispatching(
    bench: Bench, concurrency: int = 8, poll_s: float = NEVER_S
) -> AsyncIterator[Dispatcher]:
    policy = DispatchPolicy(concurrency, batch_max=100, poll_interval_s=poll_s, lease_s=15.0)
    dispatcher = Dispatcher(bench.pool, bench.pipeline, policy, bench.clock, Health())
    task = asyncio.create_task(dispatcher.run())
    try:
        yield dispatcher
    finally:
        dispatcher.stop()
        await asyncio.wait_for(task, 10)
        await dispatcher.drain(10)


async def until_effects(bench: Bench, wanted: int) -> None:
    async with asyncio.timeout(20):
        while len(bench.psp.effects) < wanted:
            await asyncio.sleep(POLL_S)


async def test_a_wake_up_is_enough_and_no_poll_is_waited_for(bench: Bench) -> None:
    async with dispatching(bench) as dispatcher:
        await bench.take_in(change_record(accepted_payment()))
        dispatcher.wake()
        await until_effects(bench, 1)


async def test_what_nobody_woke_it_for_is_found_by_polling(bench: Bench) -> None:
    async with dispatching(bench, poll_s=0.02):
        await bench.take_in(change_record(accepted_payment()))
        await until_effects(bench, 1)


async def test_no_more_than_its_concurrency_is_under_way_and_all_is_done_in_the_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counted(bench, monkeypatch)
    await bench.take_in(*(change_record(accepted_payment(f"checkout-{n:04d}")) for n in range(60)))
    async with dispatching(bench, concurrency=8):
        await until_effects(bench, 60)
    assert 1 <= calls.most <= 8
    assert await bench.pool.fetchval("SELECT count(*) FROM payments WHERE status = 'succeeded'") == 60


async def test_the_stop_lets_calls_in_flight_come_home_and_claims_nothing_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, called, answer = bench.psp.send, asyncio.Event(), asyncio.Event()

    async def held(request: PspRequest, traceparent: str) -> Outcome:
        called.set()
        await answer.wait()
        return await send(request, traceparent)

    monkeypatch.setattr(bench.psp, "send", held)
    await bench.take_in(change_record(accepted_payment()))
    async with dispatching(bench) as dispatcher:
        async with asyncio.timeout(10):
            await called.wait()
        dispatcher.stop()
        await bench.take_in(change_record(accepted_payment("checkout-0002")))
        dispatcher.wake()
        answer.set()
        await dispatcher.drain(10)
    assert (await bench.payment())["status"] == "succeeded"
    assert (await bench.payment("checkout-0002"))["status"] == "pending"


async def test_an_adapter_that_breaks_off_loses_no_payment(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(request: PspRequest, traceparent: str) -> Outcome:
        raise RuntimeError("a defect in an adapter")

    await bench.take_in(change_record(accepted_payment()))
    with monkeypatch.context() as patch:
        patch.setattr(bench.psp, "send", broken)
        async with dispatching(bench):
            async with asyncio.timeout(10):
                while not await bench.pool.fetchval("SELECT count(*) FROM attempts"):
                    await asyncio.sleep(POLL_S)
    assert (await bench.payment())["status"] == "processing"
    await bench.let_leases_end()
    await bench.run_due()
    assert (await bench.payment())["status"] == "succeeded"


async def test_a_batch_that_breaks_off_gives_its_room_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, broken = bench.psp.build, 4

    def unbuildable(order: Order, step: str, idempotency_key: str) -> PspRequest:
        nonlocal broken
        if broken:
            broken -= 1
            raise RuntimeError("a defect in an adapter")
        return build(order, step, idempotency_key)

    monkeypatch.setattr(bench.psp, "build", unbuildable)
    async with dispatching(bench, concurrency=1, poll_s=0.02):
        for number in range(5):
            await bench.take_in(change_record(accepted_payment(f"checkout-{number:04d}")))
        await until_effects(bench, 1)


async def test_a_request_that_postgres_refuses_holds_up_no_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = bench.psp.build

    def poisoned(order: Order, step: str, idempotency_key: str) -> PspRequest:
        request = build(order, step, idempotency_key)
        return replace(request, path="/\0") if order.payment.checkout_id == "checkout-0002" else request

    monkeypatch.setattr(bench.psp, "build", poisoned)
    await bench.take_in(*(change_record(accepted_payment(f"checkout-{n:04d}")) for n in range(5)))
    async with dispatching(bench, poll_s=0.02):
        await until_effects(bench, 4)
    assert (await bench.payment("checkout-0002"))["status"] == "processing"
    assert len(bench.psp.sent) == 4
