"""What no pipeline on this machine can beat: outcomes into Postgres in batches, calls to the PSP alone."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

import asyncpg

from processor.psp.interface import Approved, OperationKind, Order
from processor.psp.simulator import CHARGE, SimulatorPsp
from tollgate.errors import OperationalError
from tollgate.ids import psp_idempotency_key
from tollgate.v1.payment_pb2 import Capture, Payment

_SECONDS: Final = 3.0
_BATCH: Final = 100
_CALLERS: Final = 64

_TABLE: Final = """
CREATE TABLE bench_outcomes (
    merchant text, checkout_id text, version int, status text, at timestamptz, snapshot bytea,
    PRIMARY KEY (merchant, checkout_id, version))
"""
_INSERT: Final = """
INSERT INTO bench_outcomes SELECT 'demo', unnest($1::text[]), 2, 'succeeded', $2, $3
"""


async def outcomes_a_second(dsn: str) -> float:
    """Rows of an outcome's size, `_BATCH` a committed statement, on one connection."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(_TABLE)
        begun, rows = time.monotonic(), 0
        while (taken := time.monotonic() - begun) < _SECONDS:
            ids = [uuid4().hex for _ in range(_BATCH)]
            await connection.execute(_INSERT, ids, datetime.now(UTC), b"x" * 400)
            rows += _BATCH
        return rows / taken
    finally:
        await connection.execute("DROP TABLE IF EXISTS bench_outcomes")
        await connection.close()


async def calls_a_second(url: str) -> float:
    """Charges of the processor's own adapter, `_CALLERS` at once, with nothing else in the process.

    Raises OperationalError when one is not approved.
    """
    adapter = SimulatorPsp(url, timeout_s=10, connections_max=_CALLERS)
    begun = time.monotonic()
    calls = 0

    async def call() -> None:
        nonlocal calls
        while time.monotonic() - begun < _SECONDS:
            payment = Payment(
                merchant="bench",
                checkout_id=f"bench-{uuid4().hex}",
                amount=1234,
                currency="EUR",
                payment_method="pm_ok",
                capture=Capture.CAPTURE_AUTOMATIC,
            )
            key = psp_idempotency_key(payment.merchant, payment.checkout_id, "payment", CHARGE)
            order = Order(OperationKind.PAYMENT, payment, "payment", payment.amount, "")
            outcome = await adapter.send(adapter.build(order, CHARGE, key), "")
            if not isinstance(outcome, Approved):
                raise OperationalError(f"The simulator alone answered {outcome}.")
            calls += 1

    try:
        await asyncio.gather(*(call() for _ in range(_CALLERS)))
        return calls / (time.monotonic() - begun)
    finally:
        await adapter.close()
