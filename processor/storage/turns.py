"""Claims in turn: what is due at one PSP, one merchant after the other, for when not all can be sent at once.

A merchant with a hundred thousand due operations and one with a single one are served alternately; within a
merchant the oldest goes first. Costs an index probe a merchant, however much is due.
"""

from __future__ import annotations

from typing import Final

from processor.operation import Claim
from processor.storage.database import Pool, columns_of, translated
from processor.storage.operations import CLAIMED, lease

# A walk along the index from merchant to merchant; one that is locked by another processor is passed over.
_IN_TURN: Final = """
WITH RECURSIVE turn AS (
    SELECT * FROM (
        SELECT merchant, 1 AS place FROM operations
        WHERE psp = $1 AND merchant > $2 AND claimable_at <= now()
        ORDER BY merchant LIMIT 1
    ) AS first
    UNION ALL
    SELECT following.merchant, turn.place + 1
    FROM turn CROSS JOIN LATERAL (
        SELECT merchant FROM operations
        WHERE psp = $1 AND merchant > turn.merchant AND claimable_at <= now()
        ORDER BY merchant LIMIT 1
    ) AS following
    WHERE turn.place < $3
)
SELECT due.merchant, due.checkout_id, due.id
FROM turn CROSS JOIN LATERAL (
    SELECT o.merchant, o.checkout_id, o.id
    FROM operations AS o
    -- Not the same as turn.merchant to the planner, which would walk over all the payments of that one.
    JOIN payments AS p ON p.merchant = o.merchant || '' AND p.checkout_id = o.checkout_id
    WHERE o.psp = $1 AND o.merchant = turn.merchant AND o.claimable_at <= now()
    ORDER BY o.claimable_at
    LIMIT greatest(1, $3 / (SELECT count(*) FROM turn))
    FOR UPDATE OF o, p SKIP LOCKED
) AS due
"""

# Read anew: the rows as they are now that they are ours.
_CHOSEN: Final = f"""
{CLAIMED}
JOIN unnest($1::text[], $2::text[], $3::text[]) AS c (merchant, checkout_id, id)
    ON o.merchant = c.merchant AND o.checkout_id = c.checkout_id AND o.id = c.id
FOR UPDATE OF o, p
"""


async def claim_in_turn(
    pool: Pool, psp: str, after: str, limit: int, lease_s: float, now_us: int, monotonic: float
) -> list[Claim]:
    """At most `limit` due operations at `psp`, from the merchants that follow `after`; none when those have
    none: then the turn is the first one's ("").
    """
    with translated("claiming operations"):
        async with pool.acquire() as connection, connection.transaction():
            keys = await connection.fetch(_IN_TURN, psp, after, limit)
            if not keys:
                return []
            rows = await connection.fetch(_CHOSEN, *columns_of([tuple(key) for key in keys]))
            return await lease(connection, rows, lease_s, now_us, monotonic)
