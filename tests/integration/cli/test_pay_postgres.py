"""What `tollgate pay` reads from a real Postgres: the rows that it checks and the hops that it shows."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from processor.storage.migrate import migrate
from tollgate.cli import pay_witnesses
from tollgate.cli.pay_timeline import read_hops
from tollgate.cli.pay_witnesses import read_rows
from tollgate.cli.verify_payments import Row
from tollgate.errors import OperationalError

AT = datetime(2026, 11, 21, 10, tzinfo=UTC)

PAYMENT = """
    INSERT INTO payments (merchant, checkout_id, status, version, amount, currency, capture, payment_method,
                          psp, customer_id, description, return_url, metadata, fingerprint, traceparent,
                          created_at, updated_at, expires_at, failure_code)
    VALUES ($1, $2, 'failed', 1, 1000, 'KWD', 'automatic', 'pm_declined', 'simulator', '', '', '', '[]',
            decode(repeat('00', 32), 'hex'), '', $3, $3, $3, 'insufficient_funds')
"""
SHIPPED = """
    INSERT INTO payment_shards (merchant, checkout_id, shard, incarnation, epoch, sequence, committed_at,
                                shipped_at, ingested_at)
    VALUES ($1, $2, 1, '', 1, 1, $3, $4, $5)
"""


async def test_rows_are_the_merchants_own_and_complete(postgres_dsn: str) -> None:
    await asyncio.to_thread(migrate, postgres_dsn)
    connection = await asyncpg.connect(postgres_dsn)
    for merchant, checkout_id in (("demo", "checkout-1"), ("other", "checkout-2"), ("demo", "checkout-3")):
        await connection.execute(PAYMENT, merchant, checkout_id, AT)
    await connection.close()
    rows = await read_rows(postgres_dsn, "demo", ["checkout-1", "checkout-2", "checkout-4"])
    assert rows == {"checkout-1": Row("failed", 1000, "KWD", "insufficient_funds")}


async def test_hops_come_in_microseconds_and_in_the_order_of_the_way(postgres_dsn: str) -> None:
    await asyncio.to_thread(migrate, postgres_dsn)
    connection = await asyncpg.connect(postgres_dsn)
    await connection.execute(PAYMENT, "demo", "checkout-1", AT)
    times = [AT + timedelta(microseconds=n) for n in (1, 2, 3)]
    await connection.execute(SHIPPED, "demo", "checkout-1", *times)
    await connection.close()
    hops = await read_hops(postgres_dsn, "demo", "checkout-1")
    start_us = round(AT.timestamp() * 1_000_000)
    assert [(hop.at_us - start_us, hop.what) for hop in hops] == [
        (1, "durable on the shard"),
        (2, "in Kafka (its time stamp)"),
        (3, "in Postgres"),
    ]
    assert await read_hops(postgres_dsn, "demo", "checkout-2") == []


async def test_a_postgres_that_stays_away_is_one_clear_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pay_witnesses, "PATIENCE_S", 0.1)
    with pytest.raises(OperationalError, match="Postgres could not be read for"):
        await read_rows("postgresql://nobody@127.0.0.1:1/none", "demo", ["checkout-1"])
