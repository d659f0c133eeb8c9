"""What is still to be told: unpublished outbox rows and the snapshots that shards are owed.

Rows are found by what is missing (`published_at IS NULL`), never by "id greater than the last": an id is
taken before its transaction commits, so a later id may be seen first. Within a payment ids and versions
rise together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from processor.storage.database import Connection, Pool, columns_of, translated
from processor.storage.payments import COLUMNS, payment_from
from tollgate.errors import RejectedInput
from tollgate.v1.payment_pb2 import Payment

# What seems to come from the future is of a clock that is wrong, and is not held.
_UNPUBLISHED: Final = """
SELECT o.id, o.merchant, o.checkout_id, o.version, o.event_type, o.operation_id, o.snapshot, o.created_at,
    o.with_acceptance,
    ARRAY(SELECT DISTINCT s.shard FROM payment_shards AS s
          WHERE s.merchant = o.merchant AND s.checkout_id = o.checkout_id) AS shards
FROM outbox AS o
WHERE o.published_at IS NULL AND o.slice = ANY($1::smallint[])
  AND (o.event_type <> 'tollgate.payment.processing'
       OR o.created_at NOT BETWEEN $3 AND $3 + interval '1 second'
       OR EXISTS (SELECT FROM outbox AS n WHERE n.merchant = o.merchant AND n.checkout_id = o.checkout_id
                  AND n.version = o.version + 1))
ORDER BY o.id
LIMIT $2
"""

_PUBLISHED: Final = "UPDATE outbox SET published_at = $2 WHERE id = ANY($1::bigint[])"

# Lateral and not to be moved: while the tables are empty the planner would as soon read all payments for
# them, and it keeps that plan.
_RESENDS: Final = f"""
SELECT p.*, r.shard, r.requested_at
FROM (SELECT * FROM status_resends WHERE slice = ANY($1::smallint[]) LIMIT $2) AS r
CROSS JOIN LATERAL (
    SELECT {COLUMNS} FROM payments AS p
    WHERE p.merchant = r.merchant AND p.checkout_id = r.checkout_id OFFSET 0
) AS p
"""  # noqa: S608

_RESENT: Final = """
DELETE FROM status_resends AS r
USING unnest($1::text[], $2::text[], $3::smallint[], $4::timestamptz[])
    AS d (merchant, checkout_id, shard, requested_at)
WHERE r.merchant = d.merchant AND r.checkout_id = d.checkout_id AND r.shard = d.shard
  AND r.requested_at = d.requested_at
"""


# Only the oldest rows are looked at, and mostly only the very oldest: it costs the same however many there
# are.
_PRUNE: Final = """
DELETE FROM outbox
WHERE (SELECT published_at FROM outbox ORDER BY id LIMIT 1) < $1
  AND id IN (
    SELECT id FROM (SELECT id, published_at FROM outbox ORDER BY id LIMIT $2) AS oldest
    WHERE published_at < $1
)
"""

# A payment's newest version is one row, and its snapshot is how the payment stands. Only so many rows are
# looked at: what is older follows with the next page.
_LATEST: Final = """
SELECT o.id, o.checkout_id, o.created_at, CASE WHEN p.version = o.version THEN o.snapshot END AS snapshot,
    EXISTS (SELECT FROM payment_shards AS s
            WHERE s.merchant = o.merchant AND s.checkout_id = o.checkout_id AND s.shard = $2) AS is_shipped
FROM (SELECT * FROM outbox WHERE id < $1 ORDER BY id DESC LIMIT $3) AS o
JOIN payments AS p ON p.merchant = o.merchant AND p.checkout_id = o.checkout_id
ORDER BY o.id DESC
"""
_FIRST_PAGE: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One version of one payment. `shards` shipped it; `snapshot` is the Payment, serialized; `operation_id`
    is what the version is about, None for the payment itself. `with_acceptance`: it is the second, and tells
    of the first too.
    """

    id: int
    merchant: str
    checkout_id: str
    version: int
    event_type: str
    operation_id: str | None
    snapshot: bytes
    created_at_us: int
    with_acceptance: bool
    shards: list[int]


@dataclass(frozen=True, slots=True)
class Resend:
    """A shard that is owed the payment as it stands."""

    payment: Payment
    shard: int
    requested_at_us: int


async def unpublished(
    connection: Connection, slices: Sequence[int], limit: int, held_since_us: int
) -> list[Entry]:
    """Oldest first; a payment's versions in order and without a gap. One that began to be processed since
    `held_since_us` is left out until its next version is there.
    """
    with translated("reading the outbox"):
        rows = await connection.fetch(_UNPUBLISHED, slices, limit, held_since_us)
    return [Entry(*row) for row in rows]


async def mark_published(connection: Connection, ids: Sequence[int], now_us: int) -> None:
    with translated("marking the outbox"):
        await connection.execute(_PUBLISHED, ids, now_us)


async def owed_resends(connection: Connection, slices: Sequence[int], limit: int) -> list[Resend]:
    with translated("reading resends"):
        rows = await connection.fetch(_RESENDS, slices, limit)
    return [Resend(payment_from(row), row["shard"], row["requested_at"]) for row in rows]


async def mark_resent(connection: Connection, resends: Sequence[Resend]) -> None:
    """Forgets each, unless it was asked for again meanwhile."""
    rows = [
        (item.payment.merchant, item.payment.checkout_id, item.shard, item.requested_at_us)
        for item in resends
    ]
    with translated("marking resends"):
        await connection.execute(_RESENT, *columns_of(rows))


async def prune_published(connection: Connection, before_us: int, limit: int) -> None:
    """Forgets at most `limit` rows that were published before then."""
    with translated("pruning the outbox"):
        await connection.execute(_PRUNE, before_us, limit)


@dataclass(frozen=True, slots=True)
class LatestVersion:
    """How a payment stands. `is_shipped`: the shard that was asked for has shipped it."""

    checkout_id: str
    snapshot: bytes
    is_shipped: bool


@dataclass(frozen=True, slots=True)
class VersionsPage:
    versions: list[LatestVersion]
    next_cursor: str  # empty: there is no older one


async def latest_versions(
    pool: Pool, shard: int, since_us: int, cursor: str, limit: int = 1_000
) -> VersionsPage:
    """Every payment that changed since then (and some before), once each, the latest change first.

    As far back as the outbox goes, which is as long as a shard keeps a payment that has come to its end.
    Raises RejectedInput for a cursor that is none.
    """
    if cursor and not cursor.isdecimal():
        raise RejectedInput("The cursor is none of this service's.")
    with translated("reading what a shard missed"):
        rows = await pool.fetch(_LATEST, int(cursor or _FIRST_PAGE), shard, limit)
    versions = [
        LatestVersion(row["checkout_id"], row["snapshot"], row["is_shipped"])
        for row in rows
        if row["snapshot"] is not None
    ]
    is_last = len(rows) < limit or rows[-1]["created_at"] < since_us
    return VersionsPage(versions, "" if is_last else str(rows[-1]["id"]))
