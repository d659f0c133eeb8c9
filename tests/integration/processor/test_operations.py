"""Captures, cancels and refunds against a real Postgres and a PSP that loses, refuses and declines."""

from __future__ import annotations

import asyncio

import pytest

from processor.metrics import OPERATIONS_ENDED, OUTCOMES
from processor.operation_request import Accepted, Known, RefusalCode, Refused
from processor.psp.interface import Resolution
from processor.storage.operations import claim
from processor.storage.requests import find_operation, update_payment
from tests.fixtures.changes import accepted_payment, change_record
from tests.integration.processor.asking import (
    CANCEL,
    CAPTURE,
    HOUR_S,
    REFUND,
    accepted,
    ask_for,
    authorized,
    drain,
    events,
    find_payment,
    paid,
    refusal,
    standing,
)
from tests.integration.processor.conftest import Bench
from tests.integration.processor.psp_calls import answered_late
from tollgate.v1.payment_pb2 import Capture, MetadataEntry, OperationStatus, Payment


async def test_a_capture_takes_part_and_releases_the_rest(bench: Bench) -> None:
    await authorized(bench)
    operation_id = await accepted(bench, CAPTURE, 1000)
    await drain(bench)
    assert await standing(bench) == ("succeeded", 1000, 0)
    assert bench.psp.total("capture") == 1000
    assert await events(bench) == [
        "payment.pending",
        "payment.processing",
        "payment.authorized",
        "capture.pending",
        "payment.succeeded",
    ]
    own = await bench.operation()
    assert (own["status"], own["claimable_at"]) == ("succeeded", None)
    found = await find_operation(bench.pool, "acme", "checkout-0001", operation_id)
    assert found is not None
    assert found.status == OperationStatus.OPERATION_STATUS_SUCCEEDED
    assert await refusal(bench, CAPTURE) is RefusalCode.INVALID_TRANSITION


async def test_several_refunds_add_up_and_never_to_more_than_was_captured(bench: Bench) -> None:
    await paid(bench)
    for amount in (200, 34):
        await accepted(bench, REFUND, amount)
    assert await refusal(bench, REFUND, 1001) is RefusalCode.AMOUNT_TOO_LARGE
    await drain(bench)
    assert await standing(bench) == ("partially_refunded", 1234, 234)
    await accepted(bench, REFUND)
    await drain(bench)
    assert await standing(bench) == ("refunded", 1234, 1234)
    assert bench.psp.total("refund") == 1234
    assert await refusal(bench, REFUND) is RefusalCode.INVALID_TRANSITION
    assert (await events(bench))[-1] == "refund.succeeded"


async def test_of_two_full_refunds_at_once_one_succeeds_and_one_is_told_why_not(bench: Bench) -> None:
    await paid(bench)
    answers = await asyncio.gather(*(ask_for(bench, REFUND) for _ in range(2)))
    assert sorted(type(answer).__name__ for answer in answers) == ["Accepted", "Refused"]
    (refused,) = (answer for answer in answers if isinstance(answer, Refused))
    assert refused.code is RefusalCode.AMOUNT_TOO_LARGE
    assert refused.message.startswith("0 remain of 1234 captured: 0 refunded, 1234 in refunds under way")
    await drain(bench)
    assert bench.psp.total("refund") == 1234


async def test_many_requests_at_once_accept_exactly_what_there_is_and_show_every_version_whole(
    bench: Bench,
) -> None:
    await paid(bench)

    async def work() -> None:
        while await bench.run_due(limit=2):
            pass

    answers = await asyncio.gather(*(ask_for(bench, REFUND, 200) for _ in range(10)), work(), work())
    assert sum(isinstance(answer, Accepted) for answer in answers) == 6
    await drain(bench)
    assert await standing(bench) == ("partially_refunded", 1234, 1200)
    shown = [
        Payment.FromString(row["snapshot"])
        for row in await bench.pool.fetch("SELECT snapshot FROM outbox ORDER BY id")
    ]
    counts = [len(snapshot.operations) for snapshot in shown]
    assert counts == sorted(counts)
    assert counts[-1] == 6
    assert shown[-1] == await find_payment(bench.pool, "acme", "checkout-0001")


async def test_the_same_request_again_is_the_same_operation_and_another_one_a_conflict(bench: Bench) -> None:
    await paid(bench)
    first = await ask_for(bench, REFUND, 100, key="k", reason="late")
    again = await asyncio.gather(*(ask_for(bench, REFUND, 100, key="k", reason="late") for _ in range(4)))
    assert isinstance(first, Accepted)
    assert {answer.operation.id for answer in again if isinstance(answer, Known)} == {first.operation.id}
    for other in (
        await ask_for(bench, REFUND, 101, key="k", reason="late"),
        await ask_for(bench, REFUND, None, key="k", reason="late"),
        await ask_for(bench, REFUND, 100, key="k", reason="early"),
        await ask_for(bench, CANCEL, key="k"),
    ):
        assert isinstance(other, Refused)
        assert other.code is RefusalCode.IDEMPOTENCY_KEY_REUSED
    await drain(bench)
    later = await ask_for(bench, REFUND, 100, key="k", reason="late")
    assert isinstance(later, Known)
    assert later.operation.status == OperationStatus.OPERATION_STATUS_SUCCEEDED


async def test_a_declined_operation_leaves_the_amounts_and_raises_the_version(bench: Bench) -> None:
    await paid(bench)
    failed, outcomes = OPERATIONS_ENDED.labels("refund", "failed"), OUTCOMES.labels("succeeded")
    before = failed._value.get(), outcomes._value.get()
    operation_id = await accepted(bench, REFUND, 500)
    version = (await bench.payment())["version"]
    bench.psp.script.append("decline")
    await drain(bench)
    assert await standing(bench) == ("succeeded", 1234, 0)
    assert (await bench.payment())["version"] == version + 1
    operation = await bench.operation(operation_id=operation_id)
    assert (operation["status"], operation["failure_code"]) == ("failed", "insufficient_funds")
    assert (await events(bench))[-1] == "refund.failed"
    assert not (await bench.payment())["failure_code"]
    assert (failed._value.get(), outcomes._value.get()) == (before[0] + 1, before[1])
    await accepted(bench, REFUND)  # what it had taken is free again
    await drain(bench)
    assert await standing(bench) == ("refunded", 1234, 1234)


async def test_a_pending_payment_is_canceled_at_once_and_the_psp_never_hears_of_it(bench: Bench) -> None:
    await bench.take_in(change_record(accepted_payment()))
    answer = await ask_for(bench, CANCEL)
    assert isinstance(answer, Accepted)
    assert answer.operation.status == OperationStatus.OPERATION_STATUS_SUCCEEDED
    await bench.let_leases_end()
    assert await bench.run_due() == 0
    assert (await standing(bench), bench.psp.sent) == (("canceled", 0, 0), [])
    assert await events(bench) == ["payment.pending", "payment.canceled"]
    assert await refusal(bench, CANCEL) is RefusalCode.INVALID_TRANSITION


async def test_a_cancel_voids_an_authorization_and_a_capture_beside_it_is_refused(bench: Bench) -> None:
    await authorized(bench)
    await accepted(bench, CANCEL)
    assert await refusal(bench, CAPTURE) is RefusalCode.INVALID_TRANSITION
    await drain(bench)
    assert await standing(bench) == ("canceled", 0, 0)
    assert bench.psp.total("cancel") == 1234
    assert (await events(bench))[-1] == "payment.canceled"
    assert (await bench.operation())["claimable_at"] is None


@pytest.mark.parametrize(
    ("capture", "ends_as", "effect"),
    [
        (Capture.CAPTURE_AUTOMATIC, ("succeeded", 1234, 0), "failed"),
        (Capture.CAPTURE_MANUAL, ("canceled", 0, 0), "succeeded"),
    ],
)
async def test_a_cancel_after_the_claim_waits_and_then_voids_or_fails_and_never_refunds(
    bench: Bench, capture: Capture.ValueType, ends_as: tuple[str, int, int], effect: str
) -> None:
    await bench.take_in(change_record(accepted_payment(capture=capture)))
    claims = await claim(bench.pool, 10, 15.0, bench.clock.now_us(), bench.clock.monotonic())
    operation_id = await accepted(bench, CANCEL)
    assert await bench.run_due() == 1  # it waits
    assert not bench.psp.sent
    await bench.pipeline.run(claims, lambda: None)
    await bench.let_leases_end()
    await drain(bench)
    assert await standing(bench) == ends_as
    assert (await bench.operation(operation_id=operation_id))["status"] == effect
    assert bench.psp.total("refund") == 0


@pytest.mark.parametrize("resolution", [Resolution.REPLAY, Resolution.LOOKUP])
async def test_a_lost_answer_to_a_refund_has_one_effect(bench: Bench, resolution: Resolution) -> None:
    bench.psp.resolution = resolution
    await paid(bench)
    await accepted(bench, REFUND, 500)
    bench.psp.script += ["lose"]
    await drain(bench)
    assert await standing(bench) == ("partially_refunded", 1234, 500)
    assert bench.psp.total("refund") == 500
    refunds = [request for request in bench.psp.sent if request.path == "/refund"]
    assert len(set(refunds)) == 1
    assert (len(refunds), len(bench.psp.looked_up)) == ((2, 0) if resolution is Resolution.REPLAY else (1, 1))


async def test_an_operation_in_doubt_past_the_retention_is_parked_unsent_and_goes_on_counting(
    bench: Bench,
) -> None:
    await paid(bench)
    operation_id = await accepted(bench, REFUND, 1000)
    bench.psp.script.append("drop")
    assert await bench.run_due() == 1
    bench.clock.advance(bench.psp.key_retention_s - HOUR_S)
    await drain(bench)
    operation = await bench.operation(operation_id=operation_id)
    assert operation["parked_reason"].startswith("in doubt")
    assert operation["status"] == "pending"
    assert sum(request.path == "/refund" for request in bench.psp.sent) == 1
    assert await refusal(bench, REFUND, 500) is RefusalCode.AMOUNT_TOO_LARGE


async def test_refusals_without_effect_fail_an_operation_as_psp_unavailable(bench: Bench) -> None:
    await paid(bench)
    operation_id = await accepted(bench, REFUND)
    bench.psp.script += ["refuse"] * 3
    await drain(bench)
    assert (await bench.operation(operation_id=operation_id))["failure_code"] == "psp_unavailable"
    assert await standing(bench) == ("succeeded", 1234, 0)


async def test_a_late_answer_to_a_cancel_that_another_worker_finished_contradicts_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await authorized(bench)
    await accepted(bench, CANCEL)

    async def finish() -> None:
        await bench.let_leases_end()
        await drain(bench)

    answered_late(bench, monkeypatch, 2, finish)
    await bench.run_due()
    assert await standing(bench) == ("canceled", 0, 0)
    assert await bench.pool.fetchval("SELECT count(*) FROM anomalies") == 0
    late = await bench.pool.fetch("SELECT outcome FROM attempts WHERE late AND step = 'cancel'")
    assert [row["outcome"] for row in late] == ["approved"]


async def test_an_unknown_payment_is_not_yet_processed(bench: Bench) -> None:
    assert await refusal(bench, REFUND) is RefusalCode.NOT_YET_PROCESSED


async def test_a_change_needs_the_version_that_was_seen_and_makes_the_next(bench: Bench) -> None:
    await paid(bench)
    pairs = [MetadataEntry(key="b", value="2"), MetadataEntry(key="a", value="1")]

    async def change(version: int) -> Payment | Refused:
        now_us = bench.clock.now_us()
        return await update_payment(bench.pool, "acme", "checkout-0001", version, "Tea", pairs, now_us)

    answers = await asyncio.gather(*(change(3) for _ in range(3)))
    changed = [answer for answer in answers if isinstance(answer, Payment)]
    assert [(payment.version, payment.description) for payment in changed] == [(4, "Tea")]
    assert {answer.code for answer in answers if isinstance(answer, Refused)} == {
        RefusalCode.VERSION_MISMATCH
    }
    assert await find_payment(bench.pool, "acme", "checkout-0001") == changed[0]
    assert (await events(bench))[-1] == "payment.updated"
    await accepted(bench, REFUND)
    await drain(bench)
    assert (await bench.payment())["description"] == "Tea"
