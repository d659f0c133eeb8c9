"""Whether a stack has come to rest: what was accepted stands everywhere, and nobody has anything to do."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import asyncpg
from confluent_kafka import Consumer, TopicPartition

from tests.fixtures.stack import RunningStack
from tollgate import topics
from tollgate.cli.pay_witnesses import executing_effects, read_ledger, read_rows
from tollgate.errors import OperationalError
from tollgate.local.intake_progress import ends_of_changes, not_taken_in

_AT_WORK: Final = """
SELECT count(*) FILTER (WHERE status = 'pending') AS open,
    count(*) FILTER (WHERE parked_reason IS NOT NULL) AS parked,
    (SELECT count(*) FROM outbox WHERE published_at IS NULL) AS untold,
    (SELECT count(*) FROM status_resends) AS resends,
    (SELECT count(*) FROM webhook_inbox WHERE due_at IS NOT NULL) AS webhooks,
    (SELECT count(*) FROM dead_letters) AS dead
FROM operations WHERE starts_with(checkout_id, $1)
"""
_UNREACHABLE: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)


@dataclass(frozen=True)
class Lag:
    """What each part has before it. None where the one that knows is away."""

    to_kafka: int
    to_postgres: int | None
    at_work: Mapping[str, int] | None

    @property
    def is_none(self) -> bool:
        if self.at_work is None:
            return False
        return self.to_kafka == self.to_postgres == 0 and not any(self.at_work.values())

    def __str__(self) -> str:
        at_work = {name: count for name, count in (self.at_work or {}).items() if count}
        return f"{self.to_kafka} to Kafka, {self.to_postgres} to Postgres, {at_work or 'none'} at work"


async def lag_of(stack: RunningStack, run: str) -> Lag:
    """`run` is how this run's checkout ids begin."""
    to_kafka, to_postgres, at_work = await asyncio.gather(
        asyncio.to_thread(_to_kafka, stack), asyncio.to_thread(_to_postgres, stack), _at_work(stack, run)
    )
    return Lag(to_kafka, to_postgres, at_work)


async def problems(stack: RunningStack, accepted: Mapping[str, int]) -> list[str]:
    """Each payment succeeded, with its amount, executed once at the PSP; nothing is in payments.dlq."""
    there = stack.json
    rows = await read_rows(there.postgres_dsn, there.merchant, list(accepted))
    effects = executing_effects(await read_ledger(there.psp_simulator_url, 0), there.merchant)
    found = []
    for checkout_id, amount in accepted.items():
        row = rows.get(checkout_id)
        if row is None or (row.status, row.amount) != ("succeeded", amount):
            found.append(f"{checkout_id} of {amount} is {row} in Postgres")
        if [effect.amount for effect in effects.get(checkout_id, ())] != [amount]:
            found.append(f"{checkout_id} of {amount} has the effects {effects.get(checkout_id)}")
    if dead := await asyncio.to_thread(_dead_letters, there.kafka_bootstrap):
        found.append(f"{dead} records are in {topics.DLQ}")
    return found


async def calls_of(stack: RunningStack, run: str) -> Counter[str]:
    """Calls to the PSP by what was heard of them."""
    connection = await asyncpg.connect(stack.json.postgres_dsn, timeout=10)
    try:
        rows = await connection.fetch(
            "SELECT kind || ' ' || coalesce(outcome, 'unheard') AS what, count(*) AS calls FROM attempts "
            "WHERE starts_with(checkout_id, $1) GROUP BY 1",
            run,
        )
    finally:
        await connection.close()
    return Counter({row["what"]: row["calls"] for row in rows})


def _to_kafka(stack: RunningStack) -> int:
    told = json.loads(stack.tollgate("cdc", "status", "--json").stdout)
    return sum(int(shard["lag"]["records"]) for shard in told)


def _to_postgres(stack: RunningStack) -> int | None:
    try:
        bootstrap = stack.json.kafka_bootstrap
        return not_taken_in(bootstrap, ends_of_changes(bootstrap))
    except OperationalError:
        return None


async def _at_work(stack: RunningStack, run: str) -> dict[str, int] | None:
    try:
        connection = await asyncpg.connect(stack.json.postgres_dsn, timeout=5, command_timeout=20)
        try:
            return dict(await connection.fetchrow(_AT_WORK, run) or {})
        finally:
            await connection.close(timeout=5)
    except _UNREACHABLE:
        return None


def _dead_letters(bootstrap: str) -> int:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "outages"})
    try:
        low, high = consumer.get_watermark_offsets(TopicPartition(topics.DLQ, 0), timeout=30)
        return int(high - low)
    finally:
        consumer.close()
