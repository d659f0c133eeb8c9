"""Payments whose answers are lost and whose webhooks come early, twice, late and in any order.

What tests/unit/processor/test_webhooks_converge.py shows of the decisions, here on a real Postgres with its
locks and leases, and several processors at once.
"""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from tests.fixtures.changes import accepted_payment, change_record
from tests.fixtures.webhooks import charge_told, webhook_record
from tests.integration.processor.asking import drain
from tests.integration.processor.conftest import Bench
from tests.integration.processor.hearing import anomalies, apply_all, inbox_of, let_waiting_be_due
from tollgate.ids import PAYMENT_OPERATION, psp_idempotency_key
from tollgate.v1.payment_pb2 import Capture

COUNT = 24


@pytest.mark.parametrize("seed", range(2))
async def test_every_payment_ends_as_it_stands_at_the_psp(bench: Bench, seed: int) -> None:
    random = Random(seed)
    captures = {
        f"checkout-{n:04}": random.choice([Capture.CAPTURE_AUTOMATIC, Capture.CAPTURE_MANUAL])
        for n in range(COUNT)
    }
    webhooks = [
        webhook_record(f"evt_{checkout_id}_{copy}", _approval(checkout_id, capture))
        for checkout_id, capture in captures.items()
        for copy in range(random.choice([1, 1, 2]))
    ]
    records = webhooks + random.choices(webhooks, k=COUNT)
    records += [change_record(accepted_payment(one, capture=how)) for one, how in captures.items()]
    random.shuffle(records)
    bench.psp.script += random.choices(["lose", "approve", "drop"], k=2 * COUNT)

    async def receive() -> None:
        for first in range(0, len(records), 5):
            await bench.take_in(*records[first : first + 5])

    async def work() -> None:
        for _ in range(12):
            await bench.run_due(limit=random.randint(1, 8))

    async def hear() -> None:
        inbox = inbox_of(bench)
        for _ in range(12):
            await inbox.apply_due()
            await let_waiting_be_due(bench)

    await asyncio.gather(receive(), work(), work(), hear(), hear())
    for _ in range(3):
        await bench.let_leases_end()
        await drain(bench)
        await let_waiting_be_due(bench)
        await apply_all(bench)
    rows = await bench.pool.fetch("SELECT checkout_id, status FROM payments")
    expected = {
        one: "succeeded" if how == Capture.CAPTURE_AUTOMATIC else "authorized"
        for one, how in captures.items()
    }
    assert {row["checkout_id"]: row["status"] for row in rows} == expected
    assert await anomalies(bench) == []
    results = {row["result"] for row in await bench.pool.fetch("SELECT result FROM webhook_inbox")}
    assert results <= {"applied", "known"}
    assert len(bench.psp.charges) <= COUNT


def _approval(checkout_id: str, capture: Capture.ValueType) -> bytes:
    """As the double names its charges."""
    key = psp_idempotency_key("acme", checkout_id, PAYMENT_OPERATION, "charge")
    status = "succeeded" if capture == Capture.CAPTURE_AUTOMATIC else "authorized"
    return charge_told(status, reference=f"ch_{key[:8]}", about=f"acme/{checkout_id}")
