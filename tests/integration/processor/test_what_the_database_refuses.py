"""What no defect in the code can do to a payment: the database's own rules about operations."""

from __future__ import annotations

import asyncpg
import pytest

from tests.integration.processor.asking import (
    authorized,
    paid,
)
from tests.integration.processor.conftest import Bench

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


async def test_the_database_lets_nothing_be_captured_before_a_payment_succeeds(bench: Bench) -> None:
    await authorized(bench)
    with pytest.raises(asyncpg.CheckViolationError):
        await bench.pool.execute("UPDATE payments SET version = version + 1, captured_amount = 1")
