"""Claims, attempts and conclusions: the three transactions of an operation's life.

1. `claim`: takes due operations under a lease and raises their fencing tokens; a payment that was pending
   becomes processing, with its outbox row, in the same transaction.
2. `store_attempts`: stores what is about to be sent, before it is sent, and renews the lease. What it does
not
   return must not be sent: the lease was lost.
3. `conclude`: locks the rows, lets the pure decision run on them as they are, and writes row, operation,
   attempt and outbox together. Under an older token nothing is written but the answer, as late evidence.

A crash between any two leaves a lease that runs out, and an attempt without an answer, which is Unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from asyncpg import Record

from processor.operation import Answer, Call, CallKind, Claim, StoredRequest
from processor.outcome import Decision, begin
from processor.psp.interface import PspRequest
from processor.storage.database import Connection, Pool, columns_of, translated
from processor.storage.payments import COLUMNS, advance, payment_from
from tollgate.v1.payment_pb2 import Payment

# now() is the transaction's start and may be compared by index; clock_timestamp() may not.
_CLAIMABLE: Final = f"""
SELECT {COLUMNS}, o.id AS operation_id, o.fencing_token, k.score AS assessed_score,
    r.step, r.idempotency_key, r.method, r.path, r.body, r.first_sent_at,
    (SELECT array_agg(a.kind || ':' || coalesce(a.outcome, '') ORDER BY a.number) FROM attempts AS a
     WHERE a.merchant = r.merchant AND a.checkout_id = r.checkout_id AND a.operation_id = r.operation_id
       AND a.step = r.step) AS calls
FROM operations AS o
JOIN payments AS p ON p.merchant = o.merchant AND p.checkout_id = o.checkout_id
LEFT JOIN risk.assessments AS k ON k.merchant = o.merchant AND k.checkout_id = o.checkout_id
LEFT JOIN psp_requests AS r
    ON r.merchant = o.merchant AND r.checkout_id = o.checkout_id AND r.operation_id = o.id
WHERE o.claimable_at <= now()
ORDER BY o.claimable_at
LIMIT $1
FOR UPDATE OF o, p SKIP LOCKED
"""  # noqa: S608

_LEASE: Final = """
UPDATE operations AS o SET
    fencing_token = o.fencing_token + 1,
    claimable_at = now() + make_interval(secs => $4),
    claimed_at = coalesce(o.claimed_at, $5)
FROM unnest($1::text[], $2::text[], $3::text[]) AS c (merchant, checkout_id, id)
WHERE o.merchant = c.merchant AND o.checkout_id = c.checkout_id AND o.id = c.id
"""

_STORE_ATTEMPTS: Final = """
WITH wanted AS (
    SELECT * FROM unnest(
        $1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[],
        $9::text[], $10::bytea[], $11::integer[], $12::text[]
    ) AS w (merchant, checkout_id, operation_id, fencing_token, step, psp, idempotency_key, method, path,
            body, number, kind)
), held AS (
    UPDATE operations AS o SET claimable_at = now() + make_interval(secs => $13)
    FROM wanted AS w
    WHERE o.merchant = w.merchant AND o.checkout_id = w.checkout_id AND o.id = w.operation_id
      AND o.fencing_token = w.fencing_token AND o.status = 'pending'
    RETURNING o.merchant, o.checkout_id, o.id AS operation_id
), stored AS (
    INSERT INTO psp_requests (merchant, checkout_id, operation_id, step, psp, idempotency_key, method, path,
                              body, first_sent_at)
    SELECT w.merchant, w.checkout_id, w.operation_id, w.step, w.psp, w.idempotency_key, w.method, w.path,
           w.body, $14
    FROM wanted AS w JOIN held USING (merchant, checkout_id, operation_id)
    ON CONFLICT DO NOTHING
)
INSERT INTO attempts (merchant, checkout_id, operation_id, step, number, kind, fencing_token, sent_at)
SELECT w.merchant, w.checkout_id, w.operation_id, w.step, w.number, w.kind, w.fencing_token, $14
FROM wanted AS w JOIN held USING (merchant, checkout_id, operation_id)
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

_LOCK_HELD: Final = f"""
SELECT {COLUMNS}, o.id AS operation_id, o.fencing_token
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[])
    AS c (merchant, checkout_id, operation_id, fencing_token)
JOIN operations AS o
    ON o.merchant = c.merchant AND o.checkout_id = c.checkout_id AND o.id = c.operation_id
JOIN payments AS p ON p.merchant = o.merchant AND p.checkout_id = o.checkout_id
WHERE o.fencing_token = c.fencing_token AND o.status = 'pending'
ORDER BY o.merchant, o.checkout_id, o.id
FOR UPDATE OF p, o
"""  # noqa: S608

_CONCLUDE: Final = """
UPDATE operations AS o SET
    status = d.status, failure_code = d.failure_code, failure_message = d.failure_message,
    claimable_at = now() + make_interval(secs => d.claim_after_s),
    parked_reason = d.parked_reason,
    decided_at = CASE WHEN d.status <> 'pending' THEN $9::timestamptz END
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::float8[], $8::text[])
    AS d (merchant, checkout_id, id, status, failure_code, failure_message, claim_after_s, parked_reason)
WHERE o.merchant = d.merchant AND o.checkout_id = d.checkout_id AND o.id = d.id
"""

_ANSWER: Final = """
UPDATE attempts AS a SET
    answered_at = n.answered_at, outcome = n.outcome, evidence = n.evidence::jsonb, late = n.late
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::integer[], $6::timestamptz[], $7::text[],
            $8::text[], $9::boolean[])
    AS n (merchant, checkout_id, operation_id, step, number, answered_at, outcome, evidence, late)
WHERE a.merchant = n.merchant AND a.checkout_id = n.checkout_id AND a.operation_id = n.operation_id
  AND a.step = n.step AND a.number = n.number AND a.outcome IS NULL
"""

_ANOMALIES: Final = """
INSERT INTO anomalies (merchant, checkout_id, operation_id, kind, evidence, detected_at)
SELECT merchant, checkout_id, operation_id, kind, evidence::jsonb, $6
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
    AS a (merchant, checkout_id, operation_id, kind, evidence)
"""

# An effect that nobody decided on, at a payment that ended without one. Of every other payment a late
# approval is in doubt like any call without an answer, or says what was decided already.
_LATE_APPROVALS: Final = """
INSERT INTO anomalies (merchant, checkout_id, operation_id, kind, evidence, detected_at)
SELECT l.merchant, l.checkout_id, l.operation_id, $5, l.evidence::jsonb, $6
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
    AS l (merchant, checkout_id, operation_id, evidence)
JOIN payments AS p ON p.merchant = l.merchant AND p.checkout_id = l.checkout_id
WHERE p.status IN ('failed', 'canceled')
RETURNING merchant, checkout_id, operation_id
"""
LATE_APPROVAL: Final = "late_approval"


@dataclass(frozen=True, slots=True)
class Assessed:
    """What the risk rules said, as it is stored; `reasons` is a JSON array."""

    score: int
    reasons: str
    declined: bool


@dataclass(frozen=True, slots=True)
class NewAttempt:
    """A call about to be made. `assessed` comes with the first one."""

    claim: Claim
    step: str
    psp: str
    request: PspRequest
    kind: CallKind
    number: int
    assessed: Assessed | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """What a stored attempt came to; `evidence` is a JSON object."""

    step: str
    number: int
    answered_at_us: int
    answer: Answer
    evidence: str


@dataclass(frozen=True, slots=True)
class Conclusion:
    """`decide` is pure and runs on the payment's locked row. Without `answered` there was no call."""

    claim: Claim
    decide: Callable[[Payment], Decision]
    answered: Answered | None = None
    assessed: Assessed | None = None


async def claim(pool: Pool, limit: int, lease_s: float, now_us: int, monotonic: float) -> list[Claim]:
    """At most `limit` due operations, ours until `monotonic + lease_s` or until claimed anew."""
    with translated("claiming operations"):
        async with pool.acquire() as connection, connection.transaction():
            rows = await connection.fetch(_CLAIMABLE, limit)
            if not rows:
                return []
            claims = [_claim_from(row, monotonic + lease_s) for row in rows]
            await connection.execute(
                _LEASE, *columns_of([claimed.key for claimed in claims]), lease_s, now_us
            )
            begun = [(claimed, begin(claimed.payment, now_us)) for claimed in claims]
            await advance(connection, [following for _claimed, following in begun if following])
            return [replace(claimed, payment=following or claimed.payment) for claimed, following in begun]


async def store_attempts(
    pool: Pool, attempts: Sequence[NewAttempt], lease_s: float, now_us: int
) -> set[tuple[str, str, str]]:
    """The keys of those that may be sent now; the others' leases were lost."""
    assessed = [(attempt.claim, attempt.assessed) for attempt in attempts if attempt.assessed]
    columns = columns_of(
        [
            (
                *attempt.claim.key,
                attempt.claim.fencing_token,
                attempt.step,
                attempt.psp,
                attempt.request.idempotency_key,
                attempt.request.method,
                attempt.request.path,
                attempt.request.body,
                attempt.number,
                attempt.kind.value,
            )
            for attempt in attempts
        ]
    )
    with translated("storing attempts"):
        async with pool.acquire() as connection, connection.transaction():
            await _store_assessments(connection, assessed, now_us)
            rows = await connection.fetch(_STORE_ATTEMPTS, *columns, lease_s, now_us)
            return {_key(row) for row in rows}


async def conclude(
    pool: Pool, conclusions: Sequence[Conclusion], now_us: int
) -> list[tuple[Conclusion, Decision | None]]:
    """What was decided for each, in order; None for those whose lease was lost: nothing of theirs stands, but
    an approval of a payment that has failed is told as an anomaly.
    """
    with translated("writing outcomes"):
        async with pool.acquire() as connection, connection.transaction():
            rows = await connection.fetch(
                _LOCK_HELD, *columns_of([(*item.claim.key, item.claim.fencing_token) for item in conclusions])
            )
            held = {(*_key(row), row["fencing_token"]): row for row in rows}
            decided = [
                (item, item.decide(payment_from(held[lease])) if lease in held else None)
                for item in conclusions
                for lease in [(*item.claim.key, item.claim.fencing_token)]
            ]
            await _write(connection, decided, now_us)
            contradicted = await _store_late_approvals(connection, decided, now_us)
            return [
                (item, Decision(anomaly=LATE_APPROVAL))
                if decision is None and item.claim.key in contradicted
                else (item, decision)
                for item, decision in decided
            ]


async def _write(
    connection: Connection, decided: Sequence[tuple[Conclusion, Decision | None]], now_us: int
) -> None:
    standing = [(item, decision) for item, decision in decided if decision]
    if standing:
        operations = columns_of([_concluded(item, decision) for item, decision in standing])
        await connection.execute(_CONCLUDE, *operations, now_us)
    answers = [
        _answer(item, item.answered, late=decision is None) for item, decision in decided if item.answered
    ]
    if answers:
        await connection.execute(_ANSWER, *columns_of(answers))
    await advance(connection, [decision.payment for _item, decision in standing if decision.payment])
    await _store_assessments(
        connection, [(item.claim, item.assessed) for item, _decision in standing if item.assessed], now_us
    )
    anomalies = [
        (*item.claim.key, decision.anomaly, item.answered.evidence if item.answered else "{}")
        for item, decision in standing
        if decision.anomaly
    ]
    if anomalies:
        await connection.execute(_ANOMALIES, *columns_of(anomalies), now_us)


async def _store_late_approvals(
    connection: Connection, decided: Sequence[tuple[Conclusion, Decision | None]], now_us: int
) -> set[tuple[str, str, str]]:
    """The keys of those that contradict how their payment ended."""
    late = [
        (*item.claim.key, item.answered.evidence)
        for item, decision in decided
        if decision is None and item.answered and item.answered.answer is Answer.APPROVED
    ]
    if not late:
        return set()
    rows = await connection.fetch(_LATE_APPROVALS, *columns_of(late), LATE_APPROVAL, now_us)
    return {_key(row) for row in rows}


async def _store_assessments(
    connection: Connection, assessed: Sequence[tuple[Claim, Assessed]], now_us: int
) -> None:
    if assessed:
        rows = [
            (claimed.payment.merchant, claimed.payment.checkout_id, made.score, made.reasons, made.declined)
            for claimed, made in assessed
        ]
        await connection.execute(_STORE_ASSESSMENTS, *columns_of(rows), now_us)


def _key(row: Record) -> tuple[str, str, str]:
    return row["merchant"], row["checkout_id"], row["operation_id"]


def _claim_from(row: Record, lease_ends: float) -> Claim:
    stored = None
    if row["step"] is not None:
        request = PspRequest(row["method"], row["path"], row["idempotency_key"], row["body"])
        stored = StoredRequest(row["step"], request, row["first_sent_at"])
    return Claim(
        payment=payment_from(row),
        operation_id=row["operation_id"],
        fencing_token=row["fencing_token"] + 1,
        lease_ends=lease_ends,
        request=stored,
        calls=tuple(_call_from(call) for call in row["calls"] or ()),
        risk_score=row["assessed_score"],
    )


def _call_from(stored: str) -> Call:
    kind, _, answer = stored.partition(":")
    return Call(CallKind(kind), Answer(answer) if answer else None)


def _concluded(item: Conclusion, decision: Decision) -> tuple[Any, ...]:
    status = "pending" if decision.settled is None else "succeeded" if decision.settled else "failed"
    return (*item.claim.key, status, *decision.failure, decision.claim_after_s, decision.parked_reason)


def _answer(item: Conclusion, answered: Answered, *, late: bool) -> tuple[Any, ...]:
    return (
        *item.claim.key,
        answered.step,
        answered.number,
        answered.answered_at_us,
        answered.answer.value,
        answered.evidence,
        late,
    )
