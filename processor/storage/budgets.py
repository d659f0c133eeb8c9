"""A PSP's slots, one row on Postgres' clock, and the ways back for a claim that can't be sent in one.

GCRA without a burst: a reservation moves `next_at` on by as many intervals as it takes slots, from now or
from where the last one ended. Each is one statement, committed before anybody uses it: a crash wastes slots,
it never doubles one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from processor.operation import Claim
from processor.storage.attempts import NewAttempt
from processor.storage.database import Pool, columns_of, translated

_RESERVE: Final = """
INSERT INTO psp_budgets AS b (psp, next_at) VALUES ($1, clock_timestamp() + make_interval(secs => $2))
ON CONFLICT (psp) DO UPDATE
    SET next_at = greatest(b.next_at, clock_timestamp()) + make_interval(secs => $2)
    WHERE b.next_at <= clock_timestamp() + make_interval(secs => $3)
RETURNING extract(epoch FROM next_at - make_interval(secs => $2) - clock_timestamp())::float8
"""

# A row further ahead than any reservation leads is left by a clock that was set back.
_MEND: Final = """
WITH clamped AS (
    UPDATE psp_budgets SET next_at = clock_timestamp() + make_interval(secs => $2)
    WHERE psp = $1 AND next_at > clock_timestamp() + make_interval(secs => $2)
    RETURNING psp
)
SELECT extract(epoch FROM next_at - clock_timestamp())::float8 AS ahead_s,
    EXISTS (SELECT FROM clamped) AS clamped
FROM psp_budgets WHERE psp = $1
"""

_GIVE_BACK: Final = """
UPDATE operations AS o SET claimable_at = now()
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS c (merchant, checkout_id, id, fencing_token)
WHERE o.merchant = c.merchant AND o.checkout_id = c.checkout_id AND o.id = c.id
  AND o.fencing_token = c.fencing_token AND o.status = 'pending'
"""

# Ours alone, under our token, and not answered: as if it had never been stored.
# Whoever claimed the operation since has read the attempt, and goes on from its request.
_WITHDRAW: Final = """
DELETE FROM attempts AS a USING operations AS o
WHERE a.merchant = $1 AND a.checkout_id = $2 AND a.operation_id = $3 AND a.fencing_token = $4 AND a.step = $5
  AND a.number = $6 AND a.outcome IS NULL
  AND o.merchant = a.merchant AND o.checkout_id = a.checkout_id AND o.id = a.operation_id
  AND o.fencing_token = a.fencing_token
"""
_UNSENT_REQUEST: Final = """
DELETE FROM psp_requests AS r
WHERE merchant = $1 AND checkout_id = $2 AND operation_id = $3 AND step = $4
  AND NOT EXISTS (SELECT FROM attempts AS a WHERE a.merchant = r.merchant AND a.checkout_id = r.checkout_id
                  AND a.operation_id = r.operation_id AND a.step = r.step)
"""


async def reserve(pool: Pool, psp: str, seconds: float, horizon_s: float) -> float | None:
    """Takes the next `seconds` of the PSP's time. In how many seconds they begin, 0 or more; None when that
    would be after `horizon_s`: then nothing is taken.
    """
    with translated("reserving calls"):
        first_in_s = await pool.fetchval(_RESERVE, psp, seconds, horizon_s)
    return None if first_in_s is None else max(0.0, first_in_s)


async def look_ahead(pool: Pool, psp: str, ahead_max_s: float) -> tuple[float, bool]:
    """How far ahead everything is reserved, and whether that was too far and has been clamped."""
    with translated("looking at a budget"):
        row = await pool.fetchrow(_MEND, psp, ahead_max_s)
    return (0.0, False) if row is None else (row["ahead_s"], row["clamped"])


async def give_back(pool: Pool, claims: Sequence[Claim]) -> None:
    """Due again at once, for whoever comes. Nothing was stored for them to be sent."""
    rows = [(*claim.key, claim.fencing_token) for claim in claims]
    with translated("giving claims back"):
        await pool.execute(_GIVE_BACK, *columns_of(rows))


async def withdraw(pool: Pool, attempt: NewAttempt) -> None:
    """Undoes the storing of a call that certainly was not made: it leaves no doubt, and is due again. Nothing
    when its lease was lost: then it is resolved like a lost answer.
    """
    claim = attempt.claim
    with translated("withdrawing an attempt"):
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(_GIVE_BACK, *columns_of([(*claim.key, claim.fencing_token)]))
            await connection.execute(_WITHDRAW, *claim.key, claim.fencing_token, attempt.step, attempt.number)
            await connection.execute(_UNSENT_REQUEST, *claim.key, attempt.step)
