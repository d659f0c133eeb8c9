"""What is about to be sent, stored before it is sent: the request of a step once, an attempt for each call.

`store_attempts` renews the lease as well. What it does not return must not be sent: the lease was lost. A
crash after it leaves an attempt without an answer, which is Unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from asyncpg import Record

from processor.operation import CallKind, Claim
from processor.psp.interface import PspRequest
from processor.storage.database import Connection, Pool, columns_of, translated

# No statement joins what was handed in with itself: with hash joins off its cost would grow with the square.
_RENEW: Final = """
UPDATE operations AS o SET claimable_at = now() + make_interval(secs => $5)
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[])
    AS w (merchant, checkout_id, operation_id, fencing_token)
WHERE o.merchant = w.merchant AND o.checkout_id = w.checkout_id AND o.id = w.operation_id
  AND o.fencing_token = w.fencing_token AND o.status = 'pending'
RETURNING o.merchant, o.checkout_id, o.id AS operation_id
"""

_REQUESTS: Final = """
INSERT INTO psp_requests (merchant, checkout_id, operation_id, step, psp, idempotency_key, method, path, body,
                          position, first_sent_at)
SELECT *, $11 FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                          $8::text[], $9::bytea[], $10::integer[]) AS r
ON CONFLICT DO NOTHING
"""

_ATTEMPTS: Final = """
INSERT INTO attempts (merchant, checkout_id, operation_id, step, number, kind, fencing_token, sent_at)
SELECT *, $8 FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::integer[], $6::text[],
                         $7::bigint[]) AS a
-- Stored by this very claim, whose answer from Postgres was lost: nothing was sent yet.
ON CONFLICT (merchant, checkout_id, operation_id, step, number) DO UPDATE SET sent_at = excluded.sent_at
    WHERE attempts.fencing_token = excluded.fencing_token AND attempts.outcome IS NULL
RETURNING merchant, checkout_id, operation_id
"""

_STORE_ASSESSMENTS: Final = """
INSERT INTO risk.assessments (merchant, checkout_id, score, reasons, declined, assessed_at)
SELECT merchant, checkout_id, score, reasons::jsonb, declined, $6
FROM unnest($1::text[], $2::text[], $3::smallint[], $4::text[], $5::boolean[])
    AS a (merchant, checkout_id, score, reasons, declined)
ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class Assessed:
    """What the risk rules said, as it is stored; `reasons` is a JSON array."""

    score: int
    reasons: str
    declined: bool


@dataclass(frozen=True, slots=True)
class NewAttempt:
    """A call about to be made. `position` is its step's; `assessed` comes with the very first one."""

    claim: Claim
    step: str
    psp: str
    request: PspRequest
    kind: CallKind
    number: int
    position: int = 1
    assessed: Assessed | None = None


async def store_attempts(
    pool: Pool, attempts: Sequence[NewAttempt], lease_s: float, now_us: int
) -> set[tuple[str, str, str]]:
    """The keys of those that may be sent now; the others' leases were lost."""
    leases = columns_of([(*attempt.claim.key, attempt.claim.fencing_token) for attempt in attempts])
    with translated("storing attempts"):
        async with pool.acquire() as connection, connection.transaction():
            held = _keys(await connection.fetch(_RENEW, *leases, lease_s))
            return await insert_attempts(
                connection, [attempt for attempt in attempts if attempt.claim.key in held], now_us
            )


async def insert_attempts(
    connection: Connection, attempts: Sequence[NewAttempt], now_us: int
) -> set[tuple[str, str, str]]:
    """In the caller's transaction, which holds their operations. The keys of those that may be sent."""
    if not attempts:
        return set()
    assessed = [(attempt.claim, attempt.assessed) for attempt in attempts if attempt.assessed]
    await store_assessments(connection, assessed, now_us)
    requests = [
        (
            *attempt.claim.key,
            attempt.step,
            attempt.psp,
            attempt.request.idempotency_key,
            attempt.request.method,
            attempt.request.path,
            attempt.request.body,
            attempt.position,
        )
        for attempt in attempts
        if attempt.number == 1
    ]
    if requests:
        await connection.execute(_REQUESTS, *columns_of(requests), now_us)
    calls = [
        (*attempt.claim.key, attempt.step, attempt.number, attempt.kind.value, attempt.claim.fencing_token)
        for attempt in attempts
    ]
    return _keys(await connection.fetch(_ATTEMPTS, *columns_of(calls), now_us))


def _keys(rows: Sequence[Record]) -> set[tuple[str, str, str]]:
    return {(row["merchant"], row["checkout_id"], row["operation_id"]) for row in rows}


async def store_assessments(
    connection: Connection, assessed: Sequence[tuple[Claim, Assessed]], now_us: int
) -> None:
    if assessed:
        rows = [
            (claimed.payment.merchant, claimed.payment.checkout_id, made.score, made.reasons, made.declined)
            for claimed, made in assessed
        ]
        await connection.execute(_STORE_ASSESSMENTS, *columns_of(rows), now_us)
