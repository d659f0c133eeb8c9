"""How each dead letter stands, who redrove it, and the one redrive that may run at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from processor.dead_letters import Origin
from processor.storage.database import Connection, Pool, columns_of, connect, translated
from tollgate.errors import RejectedInput

_REDRIVE_LOCK: Final = 0x746F6703

_ANY_OPEN: Final = "SELECT EXISTS (SELECT FROM dead_letters WHERE taken_in_at IS NULL)"
_OPEN: Final = """
SELECT d.key_hash, d.origin_topic, d.origin_partition, d.origin_offset
FROM unnest($1::bytea[]) AS k (key_hash)
JOIN dead_letters AS d ON d.key_hash = k.key_hash AND d.taken_in_at IS NULL
"""

# Set aside again after a redrive, it waits for the next one as it did for the first.
_SET_ASIDE: Final = """
INSERT INTO dead_letters (origin_topic, origin_partition, origin_offset, key_hash, error, set_aside_at)
SELECT *, $6 FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::bytea[], $5::text[]) AS d
ON CONFLICT (origin_topic, origin_partition, origin_offset) DO UPDATE SET
    error = excluded.error, set_aside_at = excluded.set_aside_at, redrive = NULL, delivered_at = NULL
"""

_TAKEN_IN: Final = """
UPDATE dead_letters AS d SET taken_in_at = $4
FROM unnest($1::text[], $2::integer[], $3::bigint[]) AS t (topic, partition, "offset")
WHERE d.origin_topic = t.topic AND d.origin_partition = t.partition AND d.origin_offset = t.offset
  AND d.taken_in_at IS NULL
"""

_STANDING: Final = """
SELECT origin_topic, origin_partition, origin_offset, set_aside_at, replays, redrive, delivered_at,
    taken_in_at
FROM dead_letters
"""

_BEGIN: Final = """
INSERT INTO dlq_redrives (requested_by, filters, selected) VALUES ($1, $2, $3) RETURNING id
"""
_SENDING: Final = """
INSERT INTO dead_letters AS d (origin_topic, origin_partition, origin_offset, key_hash, error, set_aside_at,
                               replays, redrive)
SELECT w.topic, w.partition, w.offset, w.key_hash, w.error, clock_timestamp(), 1, $6
FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::bytea[], $5::text[])
    AS w (topic, partition, "offset", key_hash, error)
ON CONFLICT (origin_topic, origin_partition, origin_offset) DO UPDATE SET
    replays = d.replays + 1, redrive = excluded.redrive, delivered_at = NULL
RETURNING d.origin_topic, d.origin_partition, d.origin_offset, d.replays
"""
_DELIVERED: Final = """
WITH delivered AS (
    UPDATE dead_letters AS d SET delivered_at = clock_timestamp()
    FROM unnest($1::text[], $2::integer[], $3::bigint[]) AS t (topic, partition, "offset")
    WHERE d.origin_topic = t.topic AND d.origin_partition = t.partition AND d.origin_offset = t.offset
      AND d.redrive = $4
)
UPDATE dlq_redrives SET delivered = delivered + cardinality($1::text[]) WHERE id = $4
"""
_FINISHED: Final = "UPDATE dlq_redrives SET finished_at = clock_timestamp() WHERE id = $1"


@dataclass(frozen=True, slots=True)
class Standing:
    """How a letter stands. `redrive` without `delivered_at_us`: it was about to be sent, or was."""

    set_aside_at_us: int
    replays: int
    redrive: int | None
    delivered_at_us: int | None
    taken_in_at_us: int | None


@dataclass(frozen=True, slots=True)
class SetAside:
    origin: Origin
    key_hash: bytes
    error: str


async def open_letters(pool: Pool, key_hashes: Sequence[bytes]) -> list[tuple[bytes, Origin]]:
    """The open letters of those keys."""
    with translated("looking for dead letters"):
        rows = await pool.fetch(_OPEN, key_hashes)
    return [(row["key_hash"], Origin(*row[1:])) for row in rows]


async def any_open(pool: Pool) -> bool:
    with translated("looking for dead letters"):
        return bool(await pool.fetchval(_ANY_OPEN))


async def set_aside(pool: Pool, letters: Sequence[SetAside], now_us: int) -> None:
    """One a place. Durable when it returns: from then on later changes of their keys are set aside too."""
    rows = sorted((*item.origin, item.key_hash, item.error) for item in letters)
    with translated("storing dead letters"):
        await pool.execute(_SET_ASIDE, *columns_of(rows), now_us)


async def mark_taken_in(pool: Pool, origins: Sequence[Origin], now_us: int) -> None:
    with translated("closing dead letters"):
        await pool.execute(_TAKEN_IN, *columns_of(sorted(origins)), now_us)


async def standings(pool: Pool) -> dict[Origin, Standing]:
    with translated("reading dead letters"):
        rows = await pool.fetch(_STANDING)
    return {Origin(*row[:3]): Standing(*row[3:]) for row in rows}


@asynccontextmanager
async def only_redrive(dsn: str) -> AsyncIterator[Connection]:
    """A session for one redrive. Raises RejectedInput while another one runs."""
    connection = await connect(dsn)
    try:
        with translated("locking the redrive"):
            locked = await connection.fetchval("SELECT pg_try_advisory_lock($1::integer, 0)", _REDRIVE_LOCK)
        if not locked:
            raise RejectedInput("Another redrive is running; look at dlq_redrives, and wait for its end.")
        yield connection
    finally:
        connection.terminate()


async def begin_redrive(connection: Connection, requested_by: str, filters: str, selected: int) -> int:
    """The audit entry's number."""
    with translated("beginning a redrive"):
        return int(await connection.fetchval(_BEGIN, requested_by, filters, selected))


async def mark_sending(
    connection: Connection, redrive: int, letters: Sequence[SetAside]
) -> dict[Origin, int]:
    """Before they are sent, durably: what breaks off between here and `mark_delivered` is known by it. How
    often each has been redriven, this time included.
    """
    rows = sorted((*item.origin, item.key_hash, item.error) for item in letters)
    with translated("storing what is redriven"):
        marked = await connection.fetch(_SENDING, *columns_of(rows), redrive)
    return {Origin(*row[:3]): row["replays"] for row in marked}


async def mark_delivered(connection: Connection, redrive: int, origins: Sequence[Origin]) -> None:
    with translated("storing what was redriven"):
        await connection.execute(_DELIVERED, *columns_of(sorted(origins)), redrive)


async def finish_redrive(connection: Connection, redrive: int) -> None:
    with translated("ending a redrive"):
        await connection.execute(_FINISHED, redrive)
