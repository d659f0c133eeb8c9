"""After a storm: everything has come to rest, within a bound, without anybody's help."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Final

import asyncpg
import grpc
from confluent_kafka import KafkaException, TopicPartition

from tests.fixtures.stack import RunningStack
from tollgate.errors import OperationalError
from tollgate.kafka_group import outside_of
from tollgate.local.intake_progress import ends_of_changes, not_taken_in
from tollgate.local.stack_json import ShardProcess
from tollgate.ring_file import read_ring_file
from tollgate.topics import STATUS, status_group_prefix
from tollgate.v1.shard_pb2 import ReadChangesRequest, ReadChangesResponse
from tollgate.v1.shard_pb2_grpc import ShardStub

CALM_S: Final = 180.0
_LOOK_EVERY_S: Final = 0.5
_ASKED_S: Final = 10.0
_STEP_S_MAX: Final = 5.0  # what was longer between two looks, this process stood still in

# What waits for a payer, for a merchant or for a person is at rest.
_UNDER_WAY: Final = """
SELECT 'payments ' || status || ': ' || count(*) AS what FROM payments WHERE status IN ('pending',
'processing') GROUP BY status UNION ALL SELECT 'open operations: ' || count(*) FROM operations AS o JOIN
payments AS p USING (merchant, checkout_id) WHERE o.status = 'pending' AND o.parked_reason IS NULL AND NOT
(o.type = 'payment' AND p.status IN ('authorized', 'requires_action')) HAVING count(*) > 0 UNION ALL SELECT
'unpublished: ' || count(*) FROM outbox WHERE published_at IS NULL HAVING count(*) > 0 UNION ALL SELECT 'to be
told again: ' || count(*) FROM status_resends HAVING count(*) > 0 UNION ALL SELECT 'webhooks not applied: ' ||
count(*) FROM webhook_inbox WHERE due_at IS NOT NULL HAVING count(*) > 0
"""
_MISSING: Final = """
SELECT id FROM unnest($2::text[]) AS id
WHERE NOT EXISTS (SELECT FROM payments WHERE merchant = $1 AND checkout_id = id)
"""


async def calm(stack: RunningStack, accepted: Iterable[str], within_s: float = CALM_S) -> list[str]:
    """Empty when all is at rest; else what is still under way after so long."""
    ids = list(accepted)
    left_s, looked = within_s, time.monotonic()
    while restless := await _restless(stack, ids):
        now = time.monotonic()
        left_s -= min(now - looked, _STEP_S_MAX)
        looked = now
        if left_s < 0:
            return restless
        await asyncio.sleep(_LOOK_EVERY_S)
    return []


async def _restless(stack: RunningStack, ids: list[str]) -> list[str]:
    """The first that is found, in the order of a payment's way back."""
    away = [f"{part.name} is {part.status}" for part in stack.state.parts if part.status != "ready"]
    ring = read_ring_file(stack.paths.ring)
    if ring.joining is not None or ring.leaving is not None:
        away.append("the ring is changing")
    if away:
        return away
    try:
        return (
            [found for shard in stack.json.shards for found in await asyncio.to_thread(_unshipped, shard)]
            or await asyncio.to_thread(_not_taken_in, stack.json.kafka_bootstrap)
            or await _under_way(stack, ids)
            or [
                found
                for shard in stack.json.shards
                for found in await asyncio.to_thread(_untold, shard, stack.json.kafka_bootstrap)
            ]
        )
    except (
        grpc.RpcError,
        OperationalError,
        KafkaException,
        asyncpg.PostgresError,
        OSError,
        TimeoutError,
    ) as error:
        return [f"{type(error).__name__}: {error}"]


def _log_of(shard: ShardProcess) -> ReadChangesResponse:
    with grpc.insecure_channel(shard.grpc) as channel:
        return ShardStub(channel).ReadChanges(ReadChangesRequest(from_sequence=1, limit=0), timeout=_ASKED_S)


def _unshipped(shard: ShardProcess) -> list[str]:
    log = _log_of(shard)
    behind = log.durable_sequence - log.acknowledged_sequence
    return [f"shard {shard.id} has {behind} changes that are not shipped"] if behind else []


def _not_taken_in(bootstrap: str) -> list[str]:
    behind = not_taken_in(bootstrap, ends_of_changes(bootstrap))
    return [f"{behind} changes are not taken in"] if behind else []


async def _under_way(stack: RunningStack, ids: list[str]) -> list[str]:
    postgres = await asyncpg.connect(stack.json.postgres_dsn, timeout=_ASKED_S)
    try:
        found = [row["what"] for row in await postgres.fetch(_UNDER_WAY)]
        missing = [row["id"] for row in await postgres.fetch(_MISSING, stack.json.merchant, ids)]
    finally:
        await postgres.close()
    if missing:
        found.append(f"{len(missing)} accepted payments are not in Postgres: {missing[:3]}")
    return found


def _untold(shard: ShardProcess, bootstrap: str) -> list[str]:
    """Statuses that are published and not yet applied by the shard."""
    group = status_group_prefix(shard.id) + _log_of(shard).incarnation.hex()
    place = TopicPartition(STATUS, shard.id)
    with outside_of(group, bootstrap) as consumer:
        ends = consumer.get_watermark_offsets(place, timeout=_ASKED_S)
        (committed,) = consumer.committed([place], timeout=_ASKED_S)
    behind = (ends[1] if ends else 0) - max(0, committed.offset)
    return [f"shard {shard.id} has {behind} statuses to hear"] if behind > 0 else []
