"""What waits in Postgres for somebody: webhooks for their payment, parked operations for a person, operations
in doubt for the PSP's word.

Each query reads an index of what waits and nothing else, and stops at `COUNTED_MAX`: cheap enough for every
few seconds, in an outage too. Whoever holds the session's lock is the one processor that looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from processor.storage.database import Connection, translated

COUNTED_MAX: Final = 10_000
_LOCK: Final = 0x7477  # "tw", of the advisory locks with two numbers
_TRY: Final = "SELECT pg_try_advisory_lock($1::integer, 0)"

_WAITING: Final = """
SELECT (SELECT count(*) FROM (SELECT FROM webhook_inbox WHERE due_at IS NOT NULL LIMIT $1) AS w),
    (SELECT count(*) FROM (SELECT FROM operations WHERE parked_reason IS NOT NULL LIMIT $1) AS p)
"""

# As `processor.operation.in_doubt` has it: a send that nobody has heard of, and no word about it since. What
# is in doubt is looked at again within seconds; what sleeps for longer, as an authorization does, is not. A
# call under way is no doubt yet: $2 is when the oldest of them can have begun.
_IN_DOUBT: Final = """
SELECT count(*) OVER (), d.since, o.merchant, o.checkout_id, o.id
FROM (
    SELECT merchant, checkout_id, id FROM operations
    WHERE claimable_at < now() + interval '70 seconds' ORDER BY claimable_at LIMIT $1
) AS o
CROSS JOIN LATERAL (
    SELECT min(s.sent_at) AS since FROM attempts AS s
    WHERE s.merchant = o.merchant AND s.checkout_id = o.checkout_id AND s.operation_id = o.id
        AND s.kind = 'send' AND (s.outcome = 'unknown' OR (s.outcome IS NULL AND s.sent_at < $2))
        AND NOT EXISTS (
            SELECT FROM attempts AS l
            WHERE l.merchant = s.merchant AND l.checkout_id = s.checkout_id
                AND l.operation_id = s.operation_id AND l.sent_at > s.sent_at
                AND (l.outcome NOT IN ('unknown', 'retryable')
                    OR (l.outcome = 'retryable' AND l.kind = 'look_up'))
        )
) AS d
WHERE d.since IS NOT NULL
ORDER BY d.since LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Counts end at `COUNTED_MAX`. `since_us` and `oldest` (merchant, checkout id, operation id) are of what
    is in doubt for longest; None when there is nothing.
    """

    webhooks: int
    parked: int
    in_doubt: int = 0
    since_us: int | None = None
    oldest: tuple[str, str, str] | None = None


async def is_the_one(connection: Connection) -> bool:
    """Whether this session holds the lock, now or from before; to hold it twice does no harm."""
    with translated("choosing who counts what waits"):
        return bool(await connection.fetchval(_TRY, _LOCK))


async def what_waits(connection: Connection, under_way_since_us: int) -> Waiting:
    """Raises OperationalError."""
    with translated("counting what waits"):
        webhooks, parked = await connection.fetchrow(_WAITING, COUNTED_MAX)  # type: ignore[misc]
        found = await connection.fetchrow(_IN_DOUBT, COUNTED_MAX, under_way_since_us)
    if found is None:
        return Waiting(webhooks, parked)
    in_doubt, since_us, *oldest = found
    return Waiting(webhooks, parked, in_doubt, since_us, tuple(oldest))
