"""One payment under clients, workers and a PSP that lose, refuse and decline at random, on a real Postgres.

The same promises as in tests/unit/processor/test_operation_rules.py, which looks at far more ways: here the
locks, the constraints and the leases are real.
"""

from __future__ import annotations

import asyncio
from itertools import pairwise
from random import Random

import pytest

from tests.fixtures.changes import accepted_payment, change_record
from tests.integration.processor.asking import CANCEL, CAPTURE, REFUND, ask_for, drain, find_payment
from tests.integration.processor.conftest import Bench
from tollgate.status import BY_NAME, is_legal
from tollgate.v1.payment_pb2 import Capture, Payment

SCRIPT = ("approve", "approve", "decline", "lose", "drop", "refuse")


@pytest.mark.parametrize("seed", range(4))
async def test_the_promises_hold_whatever_clients_workers_and_the_psp_do(bench: Bench, seed: int) -> None:
    random = Random(seed)
    capture = random.choice([Capture.CAPTURE_AUTOMATIC, Capture.CAPTURE_MANUAL])
    await bench.take_in(change_record(accepted_payment(capture=capture)))
    if random.random() < 0.8:
        await drain(bench)

    async def client() -> None:
        for _ in range(6):
            kind = random.choice([CAPTURE, CANCEL, REFUND, REFUND, REFUND])
            amount = None if kind is CANCEL else random.choice([None, 1, 100, 400, 1234])
            await ask_for(bench, kind, amount, key=random.choice([None, "same"]))

    async def worker() -> None:
        for _ in range(6):
            await bench.run_due(limit=random.randint(1, 3))
            if random.random() < 0.3:
                await bench.let_leases_end()

    bench.psp.script += random.choices(SCRIPT, k=12)
    await asyncio.gather(client(), client(), worker(), worker())
    bench.psp.script.clear()
    for _ in range(3):
        await bench.let_leases_end()
        await drain(bench)
    await assert_promises(bench)


async def assert_promises(bench: Bench) -> None:
    payment = await find_payment(bench.pool, "acme", "checkout-0001")
    assert payment is not None
    operations = await bench.pool.fetch("SELECT * FROM operations WHERE number > 0 ORDER BY number")
    assert not [row["id"] for row in operations if row["status"] == "pending"]

    def done(kind: str) -> int:
        return sum(row["amount"] for row in operations if (row["type"], row["status"]) == (kind, "succeeded"))

    assert payment.refunded_amount == done("refund") == bench.psp.total("refund")
    assert payment.refunded_amount <= payment.captured_amount <= payment.amount
    if payment.capture == Capture.CAPTURE_MANUAL:
        assert payment.captured_amount == done("capture") == bench.psp.total("capture")
    assert len(bench.psp.charges) <= 1
    snapshots = [
        Payment.FromString(row["snapshot"])
        for row in await bench.pool.fetch("SELECT snapshot FROM outbox ORDER BY id")
    ]
    assert [snapshot.version for snapshot in snapshots] == list(range(1, len(snapshots) + 1))
    for before, after in pairwise(snapshots):
        assert before.status == after.status or is_legal(before.status, after.status)
        assert (after.captured_amount, after.refunded_amount) >= (
            before.captured_amount,
            before.refunded_amount,
        )
    assert snapshots[-1] == payment
    assert BY_NAME[(await bench.payment())["status"]] == payment.status
