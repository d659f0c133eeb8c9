"""A worker that dies at any step, and another that takes over: exactly one effect, whatever the step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from processor.operation import CallKind, Claim
from processor.outcome import Decision
from processor.psp.interface import Outcome, PspRequest
from processor.storage.attempts import NewAttempt, store_attempts
from processor.storage.budgets import withdraw
from processor.storage.database import Pool
from processor.storage.operations import claim, conclude
from tests.fixtures.changes import accepted_payment, change_record
from tests.integration.processor.asking import CANCEL, accepted, drain
from tests.integration.processor.conftest import Bench, bench_on
from tests.integration.processor.psp_calls import answered_late
from tollgate.errors import OperationalError
from tollgate.v1.payment_pb2 import Capture


class Killed(BaseException):
    """The process is gone: nothing after this point of the worker runs."""


@pytest.fixture
async def successor(bench: Bench, pool: Pool) -> AsyncIterator[Bench]:
    """Another processor on the same database and the same PSP."""
    async with bench_on(pool, bench.psp, bench.clock) as made:
        yield made


async def finish(successor: Bench) -> None:
    await successor.let_leases_end()
    while await successor.run_due():
        await successor.let_leases_end()


async def assert_paid_once(bench: Bench) -> None:
    payment = await bench.payment()
    assert (payment["status"], payment["captured_amount"]) == ("succeeded", 1234)
    assert len(bench.psp.effects) == 1
    assert len(set(bench.psp.sent)) == 1
    versions = await bench.pool.fetch("SELECT version FROM outbox ORDER BY id")
    assert [row["version"] for row in versions] == [1, 2, 3]


async def test_killed_after_the_claim(bench: Bench, successor: Bench) -> None:
    await bench.take_in(change_record(accepted_payment()))
    assert await claim(bench.pool, 10, 15.0, bench.clock.now_us(), 0.0)
    assert await successor.run_due() == 0
    await finish(successor)
    await assert_paid_once(bench)


async def test_killed_after_the_attempt_is_stored_and_before_the_call(bench: Bench, successor: Bench) -> None:
    async def killed(request: PspRequest, traceparent: str) -> Outcome:
        raise Killed

    await abandoned_during_the_call(bench, killed)
    assert await bench.pool.fetchval("SELECT count(*) FROM attempts WHERE outcome IS NULL") == 1
    await finish(successor)
    await assert_paid_once(bench)


async def test_killed_after_the_psp_executed_and_before_the_answer_is_stored(
    bench: Bench, successor: Bench
) -> None:
    send = bench.psp.send

    async def executed_then_killed(request: PspRequest, traceparent: str) -> Outcome:
        await send(request, traceparent)
        raise Killed

    await abandoned_during_the_call(bench, executed_then_killed)
    assert len(bench.psp.effects) == 1
    await finish(successor)
    await assert_paid_once(bench)
    assert len(bench.psp.sent) == 2


async def abandoned_during_the_call(bench: Bench, send: object) -> None:
    await bench.take_in(change_record(accepted_payment()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.psp, "send", send)
        with pytest.raises(Killed):
            await bench.run_due()


async def test_killed_while_postgres_refuses_the_outcome(
    bench: Bench, successor: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.take_in(change_record(accepted_payment()))

    refused = asyncio.Event()

    async def down(*_: object) -> None:
        refused.set()
        raise OperationalError("Postgres is down.")

    with monkeypatch.context() as patch:
        patch.setattr("processor.commit.conclude", down)
        running = asyncio.create_task(bench.run_due())
        async with asyncio.timeout(10):
            await refused.wait()
        running.cancel()
        await asyncio.wait({running})
    assert len(bench.psp.effects) == 1
    await finish(successor)
    payment = await bench.payment()
    assert payment["status"] == "succeeded"
    assert len(bench.psp.effects) == 1


@pytest.mark.parametrize(
    ("capture", "answer", "status"),
    [
        (Capture.CAPTURE_AUTOMATIC, "approve", "succeeded"),
        (Capture.CAPTURE_MANUAL, "approve", "authorized"),
        (Capture.CAPTURE_MANUAL, "action", "requires_action"),
    ],
)
async def test_an_outcome_whose_commit_was_not_heard_of_is_decided_once(
    bench: Bench, capture: Capture.ValueType, answer: str, status: str
) -> None:
    unheard = 0

    async def conclude_unheard(*arguments: object) -> object:
        """Committed, but the connection ends before Postgres' answer is there."""
        nonlocal unheard
        committed = await conclude(*arguments)  # type: ignore[arg-type]
        unheard += 1
        if unheard == 1:
            raise OperationalError("The connection ended.")
        return committed

    bench.psp.script.append(answer)
    await bench.take_in(change_record(accepted_payment(capture=capture)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("processor.commit.conclude", conclude_unheard)
        await bench.run_due()
    assert unheard == 2
    payment, operation = await bench.payment(), await bench.operation()
    assert (payment["status"], payment["version"]) == (status, 3)
    assert operation["parked_reason"] is None
    assert await bench.pool.fetchval("SELECT count(*) FROM anomalies") == 0


async def test_an_answer_under_a_stolen_lease_is_refused_and_kept_as_evidence(
    bench: Bench, successor: Bench
) -> None:
    await bench.take_in(change_record(accepted_payment()))
    with pytest.MonkeyPatch.context() as patch:
        answered_late(bench, patch, 1, lambda: finish(successor))
        await bench.run_due()
    await assert_paid_once(bench)
    (refused,) = bench.committed[-1]
    assert refused[1] is None
    attempts = await bench.pool.fetch("SELECT outcome, late FROM attempts ORDER BY number")
    assert [tuple(row) for row in attempts] == [("approved", True), ("approved", False)]


async def test_a_late_approval_of_a_payment_that_failed_meanwhile_is_an_anomaly(
    bench: Bench, successor: Bench
) -> None:
    async def hear_something_else() -> None:
        bench.psp.script.append("decline")
        await finish(successor)

    await bench.take_in(change_record(accepted_payment()))
    with pytest.MonkeyPatch.context() as patch:
        answered_late(bench, patch, 1, hear_something_else)
        await bench.run_due()
    assert (await bench.payment())["status"] == "failed"
    (anomaly,) = await bench.pool.fetch("SELECT checkout_id, kind, evidence FROM anomalies")
    assert (anomaly["checkout_id"], anomaly["kind"]) == ("checkout-0001", "late_approval")
    assert "ch_" in anomaly["evidence"]
    ((_conclusion, decision),) = bench.committed[-1]
    assert decision == Decision(anomaly="late_approval")


async def test_a_late_approval_of_what_was_authorized_and_voided_meanwhile_is_none(
    bench: Bench, successor: Bench
) -> None:
    """It tells of the very authorization that the PSP has voided since."""

    async def authorize_and_void() -> None:
        await successor.let_leases_end()
        await drain(successor)
        await accepted(successor, CANCEL)
        await drain(successor)

    await bench.take_in(change_record(accepted_payment(capture=Capture.CAPTURE_MANUAL)))
    with pytest.MonkeyPatch.context() as patch:
        answered_late(bench, patch, 1, authorize_and_void)
        await bench.run_due()
    assert (await bench.payment())["status"] == "canceled"
    ((_conclusion, decision),) = bench.committed[-1]
    assert decision is None
    assert await bench.pool.fetchval("SELECT count(*) FROM anomalies") == 0


async def test_an_answer_is_refused_as_soon_as_another_holds_the_lease_decided_or_not(
    bench: Bench, successor: Bench
) -> None:
    send = bench.psp.send

    async def slow(request: PspRequest, traceparent: str) -> Outcome:
        outcome = await send(request, traceparent)
        await bench.let_leases_end()
        assert await claim(bench.pool, 10, 15.0, bench.clock.now_us(), 0.0)
        return outcome

    await bench.take_in(change_record(accepted_payment()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.psp, "send", slow)
        await bench.run_due()
    assert (await bench.payment())["status"] == "processing"
    await finish(successor)
    await assert_paid_once(bench)


async def test_only_the_present_holder_of_the_lease_may_store_an_attempt_and_may_do_so_again(
    bench: Bench,
) -> None:
    await bench.take_in(change_record(accepted_payment()))
    now_us = bench.clock.now_us()
    (stale,) = await claim(bench.pool, 10, 15.0, now_us, 0.0)
    await bench.let_leases_end()
    (present,) = await claim(bench.pool, 10, 15.0, now_us, 0.0)
    request = PspRequest("POST", "/charges", "key", b"{}")

    async def store(claimed: Claim) -> set[tuple[str, str, str]]:
        attempt = NewAttempt(claimed, "charge", "simulator", request, kind=CallKind.SEND, number=1)
        return await store_attempts(bench.pool, [attempt], 15.0, now_us)

    assert await store(stale) == set()
    assert await store(present) == {present.key}
    assert await store(present) == {present.key}  # Postgres' answer to the first was lost on its way
    assert await store(stale) == set()


async def test_a_call_is_not_withdrawn_from_under_whoever_holds_the_lease_now(bench: Bench) -> None:
    await bench.take_in(change_record(accepted_payment()))
    now_us = bench.clock.now_us()
    (stale,) = await claim(bench.pool, 10, 15.0, now_us, 0.0)
    request = PspRequest("POST", "/charges", "key", b"{}")
    unsent = NewAttempt(stale, "charge", "simulator", request, kind=CallKind.SEND, number=1)
    assert await store_attempts(bench.pool, [unsent], 15.0, now_us)
    await bench.let_leases_end()
    (present,) = await claim(bench.pool, 10, 15.0, now_us, 0.0)
    await withdraw(bench.pool, unsent)
    again = NewAttempt(present, "charge", "simulator", request, kind=CallKind.SEND, number=2)
    assert await store_attempts(bench.pool, [again], 15.0, now_us) == {present.key}


async def test_what_a_stale_claim_wants_to_send_is_not_stored_and_so_not_sent(
    bench: Bench, successor: Bench
) -> None:
    await bench.take_in(change_record(accepted_payment()))
    (stale,) = await claim(bench.pool, 10, 15.0, bench.clock.now_us(), 0.0)
    await finish(successor)
    request = PspRequest("POST", "/charges", "another", b"{}")
    attempt = NewAttempt(stale, "charge", "simulator", request, kind=CallKind.SEND, number=1)
    assert await store_attempts(bench.pool, [attempt], 15.0, bench.clock.now_us()) == set()
    await assert_paid_once(bench)


async def test_a_lease_too_short_for_a_call_sends_nothing(bench: Bench) -> None:
    await bench.take_in(change_record(accepted_payment()))
    claims = await claim(bench.pool, 10, 15.0, bench.clock.now_us(), bench.clock.monotonic())
    store = store_attempts

    async def slow_store(*arguments: object) -> object:
        result = await store(*arguments)  # type: ignore[arg-type]
        bench.clock.advance(11)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("processor.pipeline.store_attempts", slow_store)
        await bench.pipeline.run(claims, lambda: None)
    assert not bench.psp.sent


async def test_two_workers_never_claim_the_same_operation(bench: Bench, successor: Bench) -> None:
    await bench.take_in(*(change_record(accepted_payment(f"checkout-{n:04d}")) for n in range(40)))
    counts = await asyncio.gather(*(worker.run_due(10) for worker in (bench, successor) * 4))
    assert sum(counts) == 40
    assert len(bench.psp.sent) == len(bench.psp.effects) == 40
