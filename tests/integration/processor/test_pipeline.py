"""Claimed operations against a real Postgres and a PSP that loses, refuses and overcharges."""

from __future__ import annotations

from collections import deque

import orjson

from processor.psp.interface import Resolution
from processor.storage.timeline import timeline
from tests.fixtures.changes import NOW_US, accepted_payment, change_record
from tests.integration.processor.conftest import Bench
from tollgate.v1.payment_pb2 import Capture, Payment


async def test_an_accepted_payment_succeeds_with_one_effect_and_an_outbox_row_for_every_version(
    bench: Bench,
) -> None:
    await bench.take_in(change_record(accepted_payment()))
    assert await bench.run_due() == 1
    payment = await bench.payment()
    assert (payment["status"], payment["version"], payment["captured_amount"]) == ("succeeded", 3, 1234)
    assert payment["risk_score"] == 18
    assert len(bench.psp.effects) == 1
    rows = await bench.pool.fetch("SELECT * FROM outbox ORDER BY id")
    assert [row["version"] for row in rows] == [1, 2, 3]
    last = Payment.FromString(rows[-1]["snapshot"])
    assert (last.version, last.psp_reference) == (3, payment["psp_reference"])
    assert [entry.key for entry in last.metadata] == ["zeta", "alpha"]
    assert await bench.run_due() == 0


async def test_a_manual_capture_is_authorized_and_captures_nothing(bench: Bench) -> None:
    await bench.take_in(change_record(accepted_payment(capture=Capture.CAPTURE_MANUAL)))
    await bench.run_due()
    payment = await bench.payment()
    assert (payment["status"], payment["captured_amount"]) == ("authorized", 0)


async def test_a_decline_fails_the_payment_with_the_psp_s_code(bench: Bench) -> None:
    bench.psp.script.append("decline")
    await bench.take_in(change_record(accepted_payment()))
    await bench.run_due()
    payment = await bench.payment()
    assert (payment["status"], payment["failure_code"]) == ("failed", "insufficient_funds")
    assert not bench.psp.effects


async def test_a_lost_answer_is_resolved_by_the_same_bytes_under_the_same_key(bench: Bench) -> None:
    bench.psp.script += ["lose", "drop", "approve"]
    await bench.take_in(change_record(accepted_payment()))
    while await bench.run_due():
        pass
    assert (await bench.payment())["status"] == "succeeded"
    assert len(bench.psp.sent) == 3
    assert len(set(bench.psp.sent)) == 1
    assert len(bench.psp.effects) == 1
    outcomes = await bench.pool.fetch("SELECT outcome FROM attempts ORDER BY number")
    assert [row["outcome"] for row in outcomes] == ["unknown", "unknown", "approved"]


async def test_a_strongly_consistent_psp_is_asked_before_anything_is_sent_again(bench: Bench) -> None:
    bench.psp.resolution = Resolution.LOOKUP
    bench.psp.script += ["drop", "lose"]
    await bench.take_in(change_record(accepted_payment()))
    while await bench.run_due():
        pass
    assert (await bench.payment())["status"] == "succeeded"
    assert (len(bench.psp.sent), len(bench.psp.looked_up), len(bench.psp.effects)) == (2, 2, 1)


async def test_refusals_without_effect_end_as_psp_unavailable(bench: Bench) -> None:
    bench.psp.script += ["refuse"] * 3
    await bench.take_in(change_record(accepted_payment()))
    while await bench.run_due():
        pass
    payment = await bench.payment()
    assert (payment["status"], payment["failure_code"]) == ("failed", "psp_unavailable")
    assert len(bench.psp.sent) == 3


async def test_a_payment_in_doubt_stays_processing_and_past_the_retention_is_parked_unsent(
    bench: Bench,
) -> None:
    bench.psp.script += ["drop"] * 4
    await bench.take_in(change_record(accepted_payment()))
    for _ in range(4):
        assert await bench.run_due() == 1
    assert (await bench.payment())["status"] == "processing"
    bench.clock.advance(bench.psp.key_retention_s - 3600)
    assert await bench.run_due() == 1
    assert len(bench.psp.sent) == 4
    operation = await bench.operation()
    assert operation["parked_reason"].startswith("in doubt")
    await bench.let_leases_end()
    assert await bench.run_due() == 0


async def test_a_payment_past_its_end_fails_as_expired_and_the_psp_never_hears_of_it(bench: Bench) -> None:
    await bench.take_in(change_record(accepted_payment()))
    bench.clock.advance(3600)
    await bench.run_due()
    payment = await bench.payment()
    assert (payment["status"], payment["failure_code"]) == ("failed", "expired")
    assert not bench.psp.sent


async def test_an_approval_of_another_amount_is_stored_as_an_anomaly_and_parked(bench: Bench) -> None:
    bench.psp.script.append("overcharge")
    await bench.take_in(change_record(accepted_payment()))
    await bench.run_due()
    assert (await bench.payment())["status"] == "processing"
    anomaly = await bench.pool.fetchrow("SELECT * FROM anomalies")
    assert anomaly is not None
    assert anomaly["kind"] == "approved_amount_differs"
    assert orjson.loads(anomaly["evidence"])["amount"] == 1235
    assert (await bench.operation())["parked_reason"]


async def test_risk_declines_before_the_psp_hears_of_it_and_the_assessment_is_kept(bench: Bench) -> None:
    await bench.take_in(change_record(accepted_payment(amount=99_999_999_999)))
    await bench.run_due()
    payment = await bench.payment()
    assert (payment["status"], payment["failure_code"]) == ("failed", "risk_declined")
    assert payment["risk_score"] == await bench.pool.fetchval("SELECT score FROM risk.assessments")
    assert not bench.psp.sent


async def test_the_timeline_tells_what_was_published_at_once_by_its_versions(bench: Bench) -> None:
    await bench.take_in(change_record(accepted_payment()))
    await bench.run_due()
    await bench.pool.execute("DELETE FROM outbox WHERE version = 1")
    await bench.pool.execute("UPDATE outbox SET published_at = now(), with_acceptance = (version = 2)")
    hops = await timeline(bench.pool, "acme", "checkout-0001")
    assert [hop.detail for hop in hops if hop.step == "published"] == [
        "version 1, tollgate.payment.pending",
        "version 2, tollgate.payment.processing",
        "version 3, tollgate.payment.succeeded",
    ]


async def test_the_timeline_tells_every_hop_in_order(bench: Bench) -> None:
    bench.psp.script = deque(["refuse"])
    await bench.take_in(change_record(accepted_payment()))
    while await bench.run_due():
        bench.clock.advance(1)
    hops = await timeline(bench.pool, "acme", "checkout-0001")
    assert [hop.step for hop in hops][:3] == ["accepted", "committed", "shipped"]
    assert hops[0].at_us == NOW_US
    assert {hop.step for hop in hops} >= {"ingested", "claimed", "sent", "answered", "decided"}
    assert [hop.detail for hop in hops if hop.step == "answered"] == [
        "payment attempt 1: retryable",
        "payment attempt 2: approved",
    ]
    assert await timeline(bench.pool, "acme", "checkout-9999") == []
