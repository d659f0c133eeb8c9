"""Captures, cancels and refunds against a real Postgres and a PSP that loses, refuses and declines."""

from __future__ import annotations

import asyncio
from itertools import count

import asyncpg
import pytest

from processor.operation_request import Accepted, Known, RefusalCode, Refused, Wanted
from processor.psp.interface import OperationKind, Outcome, PspRequest, Resolution
from processor.storage.operations import claim
from processor.storage.payments import find_payment
from processor.storage.requests import find_operation, request_operation, update_payment
from tests.fixtures.changes import accepted_payment, change_record
from tests.integration.processor.conftest import Bench
from tollgate.v1.payment_pb2 import Capture, MetadataEntry, OperationStatus, Payment

CAPTURE, CANCEL, REFUND = OperationKind.CAPTURE, OperationKind.CANCEL, OperationKind.REFUND
HOUR_S = 3600.0
_IDS = count(1)


async def ask_for(
    bench: Bench, kind: OperationKind, amount: int | None = None, key: str | None = None, reason: str = ""
) -> Accepted | Known | Refused:
    number = next(_IDS)
    wanted = Wanted(kind, amount, reason, key or f"key-{number}")
    return await request_operation(
        bench.pool, "acme", "checkout-0001", wanted, f"op_{number}", bench.clock.now_us()
    )


async def accepted(bench: Bench, kind: OperationKind, amount: int | None = None) -> str:
    answer = await ask_for(bench, kind, amount)
    assert isinstance(answer, Accepted)
    return answer.operation.id


async def refusal(bench: Bench, kind: OperationKind, amount: int | None = None) -> RefusalCode:
    answer = await ask_for(bench, kind, amount)
    assert isinstance(answer, Refused)
    assert answer.message
    return answer.code


async def paid(bench: Bench, capture: Capture.ValueType = Capture.CAPTURE_AUTOMATIC) -> None:
    await bench.take_in(change_record(accepted_payment(capture=capture)))
    await drain(bench)


async def authorized(bench: Bench) -> None:
    await paid(bench, Capture.CAPTURE_MANUAL)


async def drain(bench: Bench) -> None:
    while await bench.run_due():
        pass


async def standing(bench: Bench) -> tuple[str, int, int]:
    row = await bench.payment()
    return row["status"], row["captured_amount"], row["refunded_amount"]


async def events(bench: Bench) -> list[str]:
    rows = await bench.pool.fetch("SELECT version, event_type, snapshot FROM outbox ORDER BY id")
    assert [row["version"] for row in rows] == list(range(1, len(rows) + 1))
    return [row["event_type"].removeprefix("tollgate.") for row in rows]


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


async def test_a_psp_with_two_steps_gets_each_once_under_a_key_of_its_own(bench: Bench) -> None:
    bench.psp.has_two_steps = True
    bench.psp.script += ["lose", "approve", "drop", "lose"]
    await paid(bench)
    assert await standing(bench) == ("succeeded", 1234, 0)
    paths = [request.path for request in bench.psp.sent]
    assert paths == ["/create", "/create", "/confirm", "/confirm", "/confirm"]
    assert len(set(bench.psp.sent)) == 2
    assert len({request.idempotency_key for request in bench.psp.sent}) == 2
    assert len(bench.psp.charges) == len(bench.psp.effects) == 1
    stored = await bench.pool.fetch("SELECT step, position FROM psp_requests ORDER BY position")
    assert [tuple(row) for row in stored] == [("create", 1), ("confirm", 2)]
    assert len(await events(bench)) == 3


async def test_a_worker_that_dies_between_two_steps_leaves_the_second_to_another(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.psp.has_two_steps = True
    send = bench.psp.send

    async def hangs(request: PspRequest, traceparent: str) -> Outcome:
        await send(request, traceparent)
        raise asyncio.CancelledError  # the process is gone

    await bench.take_in(change_record(accepted_payment()))
    assert await bench.run_due() == 1  # created
    with monkeypatch.context() as patch:
        patch.setattr(bench.psp, "send", hangs)
        with pytest.raises(asyncio.CancelledError):
            await bench.run_due()
    await bench.let_leases_end()
    await drain(bench)
    assert await standing(bench) == ("succeeded", 1234, 0)
    assert len(bench.psp.effects) == 1


async def awaiting_its_payer(bench: Bench, capture: Capture.ValueType = Capture.CAPTURE_AUTOMATIC) -> None:
    bench.psp.script.append("action")
    await paid(bench, capture)
    row = await bench.payment()
    assert (row["status"], row["next_action_url"]) == ("requires_action", "https://psp.example/3ds")


async def test_a_payer_who_came_is_found_by_asking_and_the_bytes_are_not_sent_again(bench: Bench) -> None:
    await awaiting_its_payer(bench)
    bench.psp.visit()
    await bench.let_leases_end()
    await drain(bench)
    assert await standing(bench) == ("succeeded", 1234, 0)
    assert (await bench.payment())["next_action_url"] == ""
    assert (len(bench.psp.sent), len(bench.psp.asked)) == (1, 1)


async def test_a_payer_who_never_comes_ends_the_payment_at_the_psp_too(bench: Bench) -> None:
    await awaiting_its_payer(bench)
    await bench.let_leases_end()
    assert await bench.run_due() == 1  # asked too early: it goes on waiting
    assert (await standing(bench))[0] == "requires_action"
    bench.clock.advance(HOUR_S)
    await bench.let_leases_end()
    await drain(bench)
    row = await bench.payment()
    assert (row["status"], row["failure_code"]) == ("failed", "action_expired")
    assert [charge.status for charge in bench.psp.charges.values()] == ["canceled"]


async def test_a_payer_who_comes_at_the_last_moment_has_paid(bench: Bench) -> None:
    await awaiting_its_payer(bench)
    bench.clock.advance(HOUR_S)
    await bench.let_leases_end()
    assert await bench.run_due() == 1  # asked: still waiting
    bench.psp.visit()
    await drain(bench)  # the PSP refuses to end it, is asked again, and says so
    assert await standing(bench) == ("succeeded", 1234, 0)
    assert bench.psp.total("cancel") == 0


async def test_a_cancel_ends_a_payment_that_waits_for_its_payer(bench: Bench) -> None:
    await awaiting_its_payer(bench)
    await accepted(bench, CANCEL)
    await drain(bench)
    assert await standing(bench) == ("canceled", 0, 0)
    own = await bench.operation()
    assert (own["status"], own["failure_code"], own["claimable_at"]) == ("failed", "canceled", None)


async def test_an_authorization_past_its_window_ends_as_the_psp_says(bench: Bench) -> None:
    await authorized(bench)
    await bench.let_leases_end()
    assert await bench.run_due() == 1
    assert (await standing(bench))[0] == "authorized"  # it outlives its window
    (charge,) = bench.psp.charges.values()
    charge.status = "expired"
    await bench.let_leases_end()
    await drain(bench)
    row = await bench.payment()
    assert (row["status"], row["failure_code"]) == ("canceled", "authorization_expired")
    assert len(bench.psp.sent) == 1


async def test_a_late_answer_to_a_cancel_that_another_worker_finished_contradicts_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await authorized(bench)
    await accepted(bench, CANCEL)
    send = bench.psp.send

    async def slow(request: PspRequest, traceparent: str) -> Outcome:
        outcome = await send(request, traceparent)
        if len(bench.psp.sent) == 2:
            await bench.let_leases_end()
            await drain(bench)
        return outcome

    monkeypatch.setattr(bench.psp, "send", slow)
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


INSERT = """
INSERT INTO operations
    (merchant, checkout_id, id, type, amount, created_at, number, idempotency_key, fingerprint)
VALUES ('acme', 'checkout-0001', $1, $2, $3, now(), $4, $1, 'x')
"""


async def test_the_database_refuses_refunds_of_more_than_was_captured(bench: Bench) -> None:
    await paid(bench)
    await bench.pool.execute(INSERT, "op_a", "refund", 1000, 1)
    with pytest.raises(asyncpg.CheckViolationError, match="more than the payment has"):
        await bench.pool.execute(INSERT, "op_b", "refund", 235, 2)
    await bench.pool.execute("UPDATE operations SET status = 'failed' WHERE id = 'op_a'")
    await bench.pool.execute(INSERT, "op_b", "refund", 235, 2)


async def test_the_database_refuses_a_second_end_of_an_authorization(bench: Bench) -> None:
    await authorized(bench)
    await bench.pool.execute(INSERT, "op_a", "capture", 1000, 1)
    with pytest.raises(asyncpg.UniqueViolationError):
        await bench.pool.execute(INSERT, "op_b", "cancel", 1234, 2)


@pytest.mark.parametrize(
    "change",
    [
        "refunded_amount = 1",  # succeeded, and yet refunded
        "status = 'refunded'",
        "status = 'partially_refunded', refunded_amount = captured_amount",
        "captured_amount = 1000",
        "amount = 2000",
    ],
)
async def test_the_database_refuses_amounts_that_do_not_fit_the_status(bench: Bench, change: str) -> None:
    await paid(bench)
    with pytest.raises(asyncpg.CheckViolationError):
        await bench.pool.execute(f"UPDATE payments SET version = version + 1, {change}")  # noqa: S608
