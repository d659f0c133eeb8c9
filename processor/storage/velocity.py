"""How many payments a customer or a payment method has made of late, over all processors.

1. The subjects of the batch are locked, in one order everywhere, until the commit: who counts a subject sees
   everybody who counted it before.
2. Each payment is noted once, whenever and however often it is asked about.
3. What counts is what was noted up to itself: the same payment always has the same count.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from processor.storage.database import Pool, columns_of, translated

_SUBJECT_LOCKS: Final = 0x746F6704

_LOCK: Final = """
SELECT pg_advisory_xact_lock($1::integer, lock) FROM (SELECT unnest($2::integer[]) AS lock) AS locks
"""

_NOTE: Final = """
INSERT INTO risk.sightings (merchant, checkout_id, kind, subject, seen_at)
SELECT *, clock_timestamp() FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS s
ON CONFLICT DO NOTHING
"""

# Never more rows than the rule asks about, however many there are.
_COUNT: Final = """
SELECT (SELECT count(*) FROM (
        SELECT FROM risk.sightings AS s
        WHERE s.merchant = own.merchant AND s.kind = own.kind AND s.subject = own.subject
          AND s.seen_at > own.seen_at - make_interval(secs => q.window_s) AND s.seen_at <= own.seen_at
          AND (s.seen_at, s.checkout_id) <= (own.seen_at, own.checkout_id)
        LIMIT q.count_max) AS counted)
FROM unnest($1::text[], $2::text[], $3::text[], $4::float8[], $5::integer[]) WITH ORDINALITY
    AS q (merchant, checkout_id, kind, window_s, count_max, place)
JOIN risk.sightings AS own
    ON own.merchant = q.merchant AND own.checkout_id = q.checkout_id AND own.kind = q.kind
ORDER BY q.place
"""

_PRUNE: Final = """
DELETE FROM risk.sightings WHERE (merchant, checkout_id, kind) IN (
    SELECT merchant, checkout_id, kind FROM risk.sightings
    WHERE seen_at < clock_timestamp() - make_interval(secs => $1) ORDER BY seen_at LIMIT $2
)
"""


class Question(NamedTuple):
    """How many of `subject` were there within `window_s` up to this payment, itself included; counted up to
    `count_max`.
    """

    merchant: str
    checkout_id: str
    kind: str
    subject: str
    window_s: float
    count_max: int


async def count_sightings(pool: Pool, questions: Sequence[Question]) -> list[int]:
    """The answers in order; there is at least one question."""
    sighted = sorted({question[:4] for question in questions})
    locks = sorted({_lock_of(merchant, kind, subject) for merchant, _, kind, subject in sighted})
    asked = [(*question[:3], question.window_s, question.count_max) for question in questions]
    with translated("counting payments for risk"):
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(_LOCK, _SUBJECT_LOCKS, locks)
            await connection.execute(_NOTE, *columns_of(sighted))
            rows = await connection.fetch(_COUNT, *columns_of(asked))
    return [row[0] for row in rows]


async def prune_sightings(pool: Pool, older_than_s: float, limit: int) -> int:
    """Forgets at most `limit`; how many it did."""
    with translated("pruning what risk has counted"):
        status = await pool.execute(_PRUNE, older_than_s, limit)
    return int(status.rpartition(" ")[2])


def _lock_of(merchant: str, kind: str, subject: str) -> int:
    """Two subjects may share a lock: they wait for each other, and that is all."""
    return zlib.crc32(f"{merchant}/{kind}/{subject}".encode()) - 2**31
