"""Claimed operations against a real Postgres and a PSP that loses, refuses and overcharges."""

from __future__ import annotations

from tests.fixtures.changes import accepted_payment, change_record
from tests.integration.processor.conftest import Bench
from tollgate.v1.payment_pb2 import Payment


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
