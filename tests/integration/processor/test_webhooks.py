"""Webhooks from the change log to the payment: applied as answers are, once, whenever and in whatever order
they come.
"""

from __future__ import annotations

import asyncio
import json

import pytest

from processor.intake import Intake
from processor.psp.interface import Resolution
from tests.fixtures.changes import accepted_payment, change_record
from tests.fixtures.shard import POLL_S
from tests.fixtures.webhooks import charge_told, operation_told, webhook_record
from tests.integration.processor.asking import (
    CANCEL,
    CAPTURE,
    REFUND,
    accepted,
    authorized,
    drain,
    events,
    paid,
    standing,
)
from tests.integration.processor.conftest import Bench
from tests.integration.processor.hearing import (
    anomalies,
    apply_all,
    event,
    inbox_of,
    let_waiting_be_due,
    request_key,
    told,
)
from tollgate.v1.payment_pb2 import Capture


async def in_doubt(bench: Bench, capture: Capture.ValueType = Capture.CAPTURE_AUTOMATIC) -> None:
    """Executed at the PSP, whose answer was lost."""
    bench.psp.script.append("lose")
    await bench.take_in(change_record(accepted_payment(capture=capture)))
    await bench.run_due()


async def test_a_webhook_brings_the_outcome_that_no_answer_brought(bench: Bench) -> None:
    await in_doubt(bench)
    assert (await standing(bench))[0] == "processing"
    assert await told(bench, charge_told("succeeded")) == ["applied"]
    assert await standing(bench) == ("succeeded", 1234, 0)
    assert (await bench.payment())["psp_reference"] == "ch_1"
    operation = await bench.operation()
    assert (operation["status"], operation["claimable_at"]) == ("succeeded", None)
    assert await events(bench) == ["payment.pending", "payment.processing", "payment.succeeded"]
    assert len(bench.psp.sent) == 1
    await bench.let_leases_end()
    assert await bench.run_due() == 0


async def test_a_decline_fails_it_with_the_psps_code(bench: Bench) -> None:
    await in_doubt(bench)
    assert await told(bench, charge_told("declined")) == ["applied"]
    row = await bench.payment()
    assert (row["status"], row["failure_code"]) == ("failed", "insufficient_funds")


async def test_the_same_event_is_stored_and_applied_once(bench: Bench) -> None:
    await in_doubt(bench)
    for _ in range(3):
        assert await told(bench, charge_told("succeeded"), event_id="evt_same") == ["applied"]
    assert await told(bench, charge_told("succeeded")) == ["known"]
    assert await bench.pool.fetchval("SELECT count(*) FROM webhook_inbox") == 2
    assert (await bench.payment())["version"] == 3
    assert await anomalies(bench) == []


async def test_received_is_told_apart_from_applied(bench: Bench) -> None:
    await in_doubt(bench)
    await bench.take_in(webhook_record("evt_1", charge_told("succeeded")))
    received = await event(bench, "evt_1")
    assert (received["applied_at"], received["result"]) == (None, None)
    assert received["due_at"] is not None
    bench.clock.advance(3)
    await apply_all(bench)
    applied = await event(bench, "evt_1")
    assert (applied["applied_at"], applied["result"]) == (bench.clock.now_us(), "applied")
    assert (applied["checkout_id"], applied["operation_id"]) == ("checkout-0001", "payment")


@pytest.mark.parametrize(
    ("capture", "told_as"),
    [(Capture.CAPTURE_AUTOMATIC, "succeeded"), (Capture.CAPTURE_MANUAL, "authorized")],
)
async def test_an_answer_that_comes_after_the_webhook_is_late_evidence(
    bench: Bench, capture: Capture.ValueType, told_as: str
) -> None:
    """The call is under way while the webhook decides; an authorization leaves its operation open."""
    answering = asyncio.Event()
    send = bench.psp.send

    async def slow(request: object, traceparent: str) -> object:
        outcome = await send(request, traceparent)  # type: ignore[arg-type]
        await answering.wait()
        return outcome

    bench.psp.send = slow  # type: ignore[method-assign, assignment]
    await bench.take_in(change_record(accepted_payment(capture=capture)))
    executing = asyncio.create_task(bench.run_due())
    async with asyncio.timeout(10):
        while not bench.psp.sent:
            await asyncio.sleep(POLL_S)
    assert await told(bench, charge_told(told_as)) == ["applied"]
    answering.set()
    await executing
    attempt = await bench.pool.fetchrow("SELECT outcome, late FROM attempts")
    assert attempt is not None
    assert (attempt["outcome"], attempt["late"]) == ("approved", True)
    row = await bench.payment()
    assert (row["status"], row["version"]) == (told_as, 3)
    assert (await bench.operation())["parked_reason"] is None
    assert await anomalies(bench) == []


async def test_a_parked_payment_is_ended_by_the_psps_word(bench: Bench) -> None:
    bench.psp.resolution = Resolution.WEBHOOK
    await in_doubt(bench)
    await bench.let_leases_end()
    await drain(bench)
    assert (await bench.operation())["parked_reason"] == "in doubt, and this PSP tells only by webhook"
    assert await told(bench, charge_told("succeeded")) == ["applied"]
    assert (await standing(bench))[0] == "succeeded"
    assert (await bench.operation())["parked_reason"] is None


async def test_a_payer_who_came_is_told_by_webhook(bench: Bench) -> None:
    bench.psp.script.append("action")
    await paid(bench)
    assert (await standing(bench))[0] == "requires_action"
    bench.psp.visit()
    assert await told(bench, charge_told("succeeded"), charge_told("requires_action")) == [
        "applied",
        "known",
    ]
    row = await bench.payment()
    assert (row["status"], row["next_action_url"]) == ("succeeded", "")


async def test_an_authorization_is_captured_voided_or_ends_by_webhook(bench: Bench) -> None:
    await in_doubt(bench, Capture.CAPTURE_MANUAL)
    assert await told(bench, charge_told("authorized")) == ["applied"]
    assert (await standing(bench))[0] == "authorized"
    operation = await accepted(bench, CAPTURE, 1000)
    bench.psp.script.append("drop")
    await bench.run_due()
    done = operation_told("capture", request_key(operation, "capture"), amount=1000)
    assert sorted(map(str, await told(bench, done, done))) == ["applied", "known"]
    assert await standing(bench) == ("succeeded", 1000, 0)
    assert (await bench.operation())["status"] == "succeeded"


async def test_a_refund_is_ended_by_webhook_and_another_amount_is_an_anomaly(bench: Bench) -> None:
    await paid(bench)
    operation = await accepted(bench, REFUND, 234)
    bench.psp.script.append("drop")
    await bench.run_due()
    key = request_key(operation, "refund")
    assert await told(bench, operation_told("refund", key, amount=234)) == ["applied"]
    assert await standing(bench) == ("partially_refunded", 1234, 234)
    assert await told(bench, operation_told("refund", key, amount=235)) == ["anomaly"]
    assert await anomalies(bench) == ["refund_amount_differs"]
    assert await standing(bench) == ("partially_refunded", 1234, 234)


async def test_what_comes_before_its_payment_waits_for_it_and_is_matched(bench: Bench) -> None:
    assert await told(bench, charge_told("succeeded"), event_id="evt_early") == [None]
    waiting = await event(bench, "evt_early")
    assert (waiting["checkout_id"], waiting["tries"]) == ("checkout-0001", 1)
    await bench.take_in(change_record(accepted_payment()))
    due = await bench.pool.fetchval("SELECT due_at <= now() FROM webhook_inbox")
    assert due is True, "its payment has come: it is looked at at once"
    await apply_all(bench)
    assert (await standing(bench))[0] == "pending", "nothing was sent yet: that it was executed can't be"
    bench.psp.script.append("lose")
    await bench.run_due()
    await let_waiting_be_due(bench)
    await apply_all(bench)
    assert await standing(bench) == ("succeeded", 1234, 0)
    assert (await event(bench, "evt_early"))["result"] == "applied"


async def test_an_event_of_nobody_is_looked_at_for_seven_days_and_kept(bench: Bench) -> None:
    for about in ("acme/checkout-9999", "nobody"):
        assert await told(bench, charge_told("succeeded", about=about), event_id=f"evt_{about}") == [None]
    bench.clock.advance(7 * 86_400 - 1)
    for _ in range(20):
        await let_waiting_be_due(bench)
        await apply_all(bench)
    row = await event(bench, "evt_acme/checkout-9999")
    assert (row["result"], row["tries"]) == (None, 21)
    wait_s = await bench.pool.fetchval("SELECT max(extract(epoch FROM due_at - now())) FROM webhook_inbox")
    assert 3500 < wait_s <= 3600, "the longer nobody comes the more rarely it is looked at"
    bench.clock.advance(1)
    await let_waiting_be_due(bench)
    await apply_all(bench)
    rows = await bench.pool.fetch("SELECT result, due_at FROM webhook_inbox")
    assert [tuple(row) for row in rows] == [("unmatched", None)] * 2


async def test_proof_of_an_effect_on_a_failed_payment_is_kept_and_changes_nothing(bench: Bench) -> None:
    bench.psp.script.append("decline")
    await paid(bench)
    assert await told(bench, charge_told("succeeded"), event_id="evt_proof") == ["anomaly"]
    assert (await standing(bench))[0] == "failed"
    row = await bench.pool.fetchrow("SELECT * FROM anomalies")
    assert row is not None
    assert (row["kind"], row["operation_id"]) == ("approved_while_failed", "payment")
    evidence = json.loads(row["evidence"])
    assert evidence["webhook"] == {"psp": "simulator", "event_id": "evt_proof"}
    assert evidence["told"]["amount"] == 1234
    assert (await event(bench, "evt_proof"))["result"] == "anomaly"


async def test_proof_of_an_effect_on_a_payment_canceled_before_it_was_sent_is_kept(bench: Bench) -> None:
    await bench.take_in(change_record(accepted_payment()))
    await accepted(bench, CANCEL)
    assert (await standing(bench))[0] == "canceled"
    assert await told(bench, charge_told("succeeded")) == ["anomaly"]
    assert await anomalies(bench) == ["approved_while_canceled"]


async def test_the_authorization_of_what_was_voided_since_is_no_anomaly(bench: Bench) -> None:
    await authorized(bench)
    reference = (await bench.payment())["psp_reference"]
    await accepted(bench, CANCEL)
    await drain(bench)
    assert (await standing(bench))[0] == "canceled"
    assert await told(bench, charge_told("authorized", reference=reference)) == ["known"]
    assert await told(bench, charge_told("authorized", reference="ch_other")) == ["anomaly"]
    assert await anomalies(bench) == ["approved_while_canceled"]


async def test_another_psp_can_not_speak_for_a_payment(bench: Bench) -> None:
    await in_doubt(bench)
    await bench.take_in(webhook_record("evt_1", charge_told("succeeded"), psp="stripe"))
    inbox = inbox_of(bench)
    inbox._psps = {**inbox._psps, "stripe": inbox._psps["simulator"]}
    await inbox.apply_due()
    assert (await standing(bench))[0] == "processing"
    assert (await event(bench, "evt_1"))["result"] is None


async def test_only_webhooks_wake_the_inbox(bench: Bench) -> None:
    woken: list[str] = []
    intake = Intake(
        bench.pool,
        bench.publisher,
        bench.clock,
        lambda: woken.append("dispatch"),
        lambda: woken.append("inbox"),
    )
    await intake.handle([change_record(accepted_payment())])
    assert woken == ["dispatch"]
    await intake.handle([webhook_record("evt_1", charge_told("succeeded"))])
    assert woken[1:] == ["inbox"]


async def test_what_can_not_be_read_is_kept_and_stops_nothing(bench: Bench) -> None:
    await in_doubt(bench)
    results = await told(bench, b"{", b"[]", b'{"type": "payout"}', charge_told("succeeded"))
    assert results == ["unreadable", "unreadable", "irrelevant", "applied"]
    assert await bench.pool.fetchval("SELECT count(*) FROM webhook_inbox WHERE due_at IS NOT NULL") == 0


async def test_what_postgres_refuses_is_set_aside_and_stops_nothing(bench: Bench) -> None:
    await in_doubt(bench)
    far_too_long = charge_told("succeeded", about="acme/" + "x" * 100_000)
    results = await told(bench, far_too_long, charge_told("succeeded"))
    assert results[1] == "applied"
    assert results[0] in (None, "refused")
    unreadable = charge_told("declined", about="acme/\udcff".encode("utf-8", "replace").decode())
    assert (await told(bench, unreadable))[0] is None


async def test_many_processors_apply_each_event_once(bench: Bench) -> None:
    ids = [f"checkout-{n:04}" for n in range(30)]
    bench.psp.script += ["lose"] * len(ids)
    await bench.take_in(*(change_record(accepted_payment(one)) for one in ids))
    assert await bench.run_due() == len(ids)
    bodies = [charge_told("succeeded", reference=f"ch_{one}", about=f"acme/{one}") for one in ids]
    doubled = [webhook_record(f"evt_{n}", body) for n, body in enumerate([*bodies, *bodies])]
    await bench.take_in(*doubled)
    inboxes = [inbox_of(bench) for _ in range(4)]
    for _ in range(4):
        await asyncio.gather(*(inbox.apply_due() for inbox in inboxes))
    statuses = await bench.pool.fetch("SELECT DISTINCT status, version FROM payments")
    assert [tuple(row) for row in statuses] == [("succeeded", 3)]
    results = await bench.pool.fetch("SELECT result, count(*) FROM webhook_inbox GROUP BY 1 ORDER BY 1")
    assert [tuple(row) for row in results] == [("applied", 30), ("known", 30)]


@pytest.mark.parametrize("amount", [1, 1235])
async def test_an_approval_of_another_amount_is_believed_by_nobody(bench: Bench, amount: int) -> None:
    await in_doubt(bench)
    assert await told(bench, charge_told("succeeded", amount=amount)) == ["anomaly"]
    assert (await standing(bench))[0] == "processing"
    assert (await bench.operation())["parked_reason"] == "anomaly: approved_amount_differs"
    assert await anomalies(bench) == ["approved_amount_differs"]
