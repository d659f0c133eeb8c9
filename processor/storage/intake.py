"""A batch of changes into Postgres, in one transaction: new payments, repeats, conflicts, webhooks.

The first acceptance of a (merchant, checkout id) wins, whoever shipped it. A repeat, known by its content,
makes the shard be told how the payment stands; another content is a conflict, stored once per change. Every
statement may meet what an earlier delivery of the same batch already wrote.

A payment whose first call is known already is stored as begun: claimed, its request and attempt beside it, as
versions 1 and 2. A crash after it leaves an attempt without an answer, as after `store_attempts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from processor.storage.attempts import NewAttempt, insert_attempts
from processor.storage.database import Connection, Pool, columns_of, translated
from processor.storage.payments import inserted_columns, slice_of, tell
from tollgate.v1.payment_pb2 import Payment

# No statement joins what was handed in with itself: with hash joins off its cost would grow with the square.
_PAYMENTS: Final = """
WITH fresh AS (
    INSERT INTO payments (merchant, checkout_id, status, version, amount, currency, capture, payment_method,
                          psp, customer_id, description, return_url, metadata, fingerprint, traceparent,
                          created_at, updated_at, expires_at)
    SELECT * FROM unnest(
        $1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::text[],
        $9::text[], $10::text[], $11::text[], $12::text[], $13::json[], $14::bytea[], $15::text[],
        $16::timestamptz[], $17::timestamptz[], $18::timestamptz[]
    ) AS i
    ON CONFLICT DO NOTHING
    RETURNING merchant, checkout_id
), expected AS (  -- webhooks that came before their payment
    UPDATE webhook_inbox AS w SET due_at = now()
    FROM fresh AS f WHERE w.merchant = f.merchant AND w.checkout_id = f.checkout_id AND w.due_at IS NOT NULL
)
SELECT merchant, checkout_id FROM fresh
"""

# Those that are begun here are claimed by it: nobody else has seen them.
_OPERATIONS: Final = """
INSERT INTO operations (merchant, checkout_id, id, type, amount, created_at, psp, fencing_token, claimable_at,
                        claimed_at)
SELECT merchant, checkout_id, 'payment', 'payment', amount, created_at, psp, fencing_token,
       now() + make_interval(secs => fencing_token * $7::float8),
       CASE WHEN fencing_token > 0 THEN $8::timestamptz END
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[], $5::text[], $6::bigint[])
    AS o (merchant, checkout_id, amount, created_at, psp, fencing_token)
"""

_KNOWN: Final = """
SELECT p.merchant, p.checkout_id, p.fingerprint
FROM unnest($1::text[], $2::text[]) AS k (merchant, checkout_id)
JOIN payments AS p ON p.merchant = k.merchant AND p.checkout_id = k.checkout_id
"""

_SHARDS: Final = """
INSERT INTO payment_shards (merchant, checkout_id, shard, incarnation, epoch, sequence, committed_at,
                            shipped_at, ingested_at)
SELECT *, $9 FROM unnest($1::text[], $2::text[], $3::smallint[], $4::bytea[], $5::bigint[], $6::bigint[],
                         $7::timestamptz[], $8::timestamptz[]) AS s
ON CONFLICT DO NOTHING
"""

_RESENDS: Final = """
INSERT INTO status_resends (merchant, checkout_id, shard, slice, requested_at)
SELECT DISTINCT merchant, checkout_id, shard, slice, $5::timestamptz
FROM unnest($1::text[], $2::text[], $3::smallint[], $4::smallint[]) AS r (merchant, checkout_id, shard, slice)
ORDER BY merchant, checkout_id, shard
ON CONFLICT (merchant, checkout_id, shard) DO UPDATE SET requested_at = excluded.requested_at
"""

_CONFLICTS: Final = """
INSERT INTO payment_conflicts (merchant, checkout_id, shard, incarnation, epoch, sequence, fingerprint,
                               acceptance, detected_at)
SELECT *, $9 FROM unnest($1::text[], $2::text[], $3::smallint[], $4::bytea[], $5::bigint[], $6::bigint[],
                         $7::bytea[], $8::bytea[]) AS c
ON CONFLICT DO NOTHING
RETURNING merchant, checkout_id, shard
"""

_WEBHOOKS: Final = """
INSERT INTO webhook_inbox (psp, event_id, body, received_at, ingested_at)
SELECT *, $5 FROM unnest($1::text[], $2::text[], $3::bytea[], $4::timestamptz[]) AS w
ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class Origin:
    """Which change it was: unique for ever, and where it comes from."""

    shard: int
    incarnation: bytes
    epoch: int
    sequence: int
    committed_at_us: int
    shipped_at_us: int


@dataclass(frozen=True, slots=True)
class Acceptance:
    """A payment that a shard accepted, as version 1, and the bytes in which it was shipped."""

    origin: Origin
    payment: Payment
    shipped: bytes

    @property
    def key(self) -> tuple[str, str]:
        return self.payment.merchant, self.payment.checkout_id


@dataclass(frozen=True, slots=True)
class ReceivedWebhook:
    psp: str
    event_id: str
    body: bytes
    received_at_us: int


@dataclass(frozen=True, slots=True)
class FirstCalls:
    """The first calls of payments that this batch may bring, by their keys, and for how long whoever stores
    them may act on them alone. They hold the payment's second version.
    """

    attempts: Mapping[tuple[str, str], NewAttempt]
    lease_s: float


NONE: Final = FirstCalls({}, 0.0)


@dataclass(slots=True)
class Ingested:
    """What became of a batch. `conflicts` names only those seen for the first time; `begun` may be sent."""

    fresh: int = 0
    repeated: int = 0
    begun: list[NewAttempt] = field(default_factory=list)
    conflicts: list[tuple[str, str, int]] = field(default_factory=list)


def firsts_of(acceptances: Sequence[Acceptance]) -> dict[tuple[str, str], Acceptance]:
    """Of each payment the acceptance that came first: it is the one that is stored, if any is."""
    first: dict[tuple[str, str], Acceptance] = {}
    for item in acceptances:
        first.setdefault(item.key, item)
    return first


async def ingest(
    pool: Pool,
    acceptances: Sequence[Acceptance],
    webhooks: Sequence[ReceivedWebhook],
    now_us: int,
    first_calls: FirstCalls = NONE,
) -> Ingested:
    """Durable when it returns. Raises RejectedInput when Postgres refuses a content: then nothing is
    stored.
    """
    with translated("storing changes"):
        async with pool.acquire() as connection, connection.transaction():
            if webhooks:
                await _store_webhooks(connection, webhooks, now_us)
            if not acceptances:
                return Ingested()
            return await _store(connection, acceptances, now_us, first_calls)


async def _store(
    connection: Connection, acceptances: Sequence[Acceptance], now_us: int, first_calls: FirstCalls
) -> Ingested:
    first = firsts_of(acceptances)
    # In one order everywhere, so that two processors with the same payments wait and never deadlock.
    firsts = [first[key] for key in sorted(first)]
    begun = first_calls.attempts
    standing = [begun[item.key].claim.payment if item.key in begun else item.payment for item in firsts]
    rows = await connection.fetch(_PAYMENTS, *inserted_columns(standing))
    fresh = {(row["merchant"], row["checkout_id"]) for row in rows}
    ingested = Ingested(fresh=len(fresh))
    if fresh:
        new = [item for item in firsts if item.key in fresh]
        ingested.begun = await _store_new(connection, new, now_us, first_calls)
    others = [item for item in acceptances if not (item.key in fresh and first[item.key] is item)]
    if others:
        await _arbitrate(connection, others, now_us, ingested)
    origins = sorted(
        ((*item.key, *_change_id(item), item.origin.committed_at_us, item.origin.shipped_at_us))
        for item in acceptances
    )
    await connection.execute(_SHARDS, *columns_of(origins), now_us)
    return ingested


async def _store_new(
    connection: Connection, new: Sequence[Acceptance], now_us: int, first_calls: FirstCalls
) -> list[NewAttempt]:
    """Their operations, what is told of them, and the first calls of those that are begun."""
    begun = {item.key: first_calls.attempts[item.key] for item in new if item.key in first_calls.attempts}
    operations = [
        (*item.key, item.payment.amount, item.payment.updated_at_us, item.payment.psp, int(item.key in begun))
        for item in new
    ]
    await connection.execute(_OPERATIONS, *columns_of(operations), first_calls.lease_s, now_us)
    standing = [begun[item.key].claim.payment if item.key in begun else item.payment for item in new]
    await tell(connection, standing)
    allowed = await insert_attempts(connection, list(begun.values()), now_us)
    return [attempt for attempt in begun.values() if attempt.claim.key in allowed]


async def _arbitrate(
    connection: Connection, others: Sequence[Acceptance], now_us: int, ingested: Ingested
) -> None:
    keys = sorted({item.key for item in others})
    rows = await connection.fetch(_KNOWN, *columns_of(keys))
    winners = {(row["merchant"], row["checkout_id"]): row["fingerprint"] for row in rows}
    losing = [item for item in others if winners[item.key] != item.payment.fingerprint]
    ingested.repeated = len(others) - len(losing)
    if losing:
        columns = columns_of(
            [(*item.key, *_change_id(item), item.payment.fingerprint, item.shipped) for item in losing]
        )
        conflicts = await connection.fetch(_CONFLICTS, *columns, now_us)
        ingested.conflicts = [(row["merchant"], row["checkout_id"], row["shard"]) for row in conflicts]
    resends = [(*item.key, item.origin.shard, slice_of(*item.key)) for item in others]
    await connection.execute(_RESENDS, *columns_of(resends), now_us)


async def _store_webhooks(connection: Connection, webhooks: Sequence[ReceivedWebhook], now_us: int) -> None:
    rows = sorted((item.psp, item.event_id, item.body, item.received_at_us) for item in webhooks)
    await connection.execute(_WEBHOOKS, *columns_of(rows), now_us)


def _change_id(item: Acceptance) -> tuple[int, bytes, int, int]:
    origin = item.origin
    return origin.shard, origin.incarnation, origin.epoch, origin.sequence
