"""Claims and conclusions: an operation's first transaction and its last; `attempts` is the one between.

1. `claim`: takes due operations under a lease and raises their fencing tokens; a payment that was pending
   becomes processing, with its outbox row, in the same transaction.
2. `conclude`: locks the rows, lets the pure decision run on them as they are, and writes row, operation,
   attempt and outbox together. Under an older token nothing is written but the answer, as late evidence.

A crash between any two leaves a lease that runs out, and an attempt without an answer, which is Unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from asyncpg import Record

from processor.operation import Answer, Call, CallKind, Claim, TakenStep
from processor.operation_outcome import CANCELED_FAILURE
from processor.outcome import Decision, begin
from processor.psp.interface import OperationKind, PspRequest
from processor.storage.attempts import Assessed, store_assessments
from processor.storage.database import Connection, Pool, columns_of, translated
from processor.storage.locks import lock_claimed
from processor.storage.payments import ROW_COLUMNS, advance, payment_from, shown_id
from tollgate.v1.payment_pb2 import Payment

# now() is the transaction's start and may be compared by index; clock_timestamp() may not.
CLAIM_COLUMNS: Final = f"""
    {ROW_COLUMNS}, o.id AS operation_id, o.type, o.amount AS operation_amount,
    o.created_at AS operation_created_at, o.fencing_token, k.score AS assessed_score"""
CLAIMED: Final = f"""
SELECT {CLAIM_COLUMNS}
FROM operations AS o
JOIN payments AS p ON p.merchant = o.merchant AND p.checkout_id = o.checkout_id
LEFT JOIN risk.assessments AS k ON k.merchant = o.merchant AND k.checkout_id = o.checkout_id
"""  # noqa: S608

_OLDEST_FIRST: Final = "ORDER BY o.claimable_at LIMIT $1 FOR UPDATE OF o, p SKIP LOCKED"
_CLAIMABLE: Final = f"{CLAIMED} WHERE o.claimable_at <= now() {_OLDEST_FIRST}"
_CLAIMABLE_ELSEWHERE: Final = (
    f"{CLAIMED} WHERE o.claimable_at <= now() AND o.psp <> ALL($2::text[]) {_OLDEST_FIRST}"
)

# The steps of operations that were claimed before, oldest first, each with its calls in order.
_TAKEN: Final = """
SELECT r.merchant, r.checkout_id, r.operation_id, r.step, r.idempotency_key, r.method, r.path, r.body,
    r.first_sent_at, c.calls, c.reference
FROM unnest($1::text[], $2::text[], $3::text[]) AS k (merchant, checkout_id, operation_id)
JOIN psp_requests AS r
    ON r.merchant = k.merchant AND r.checkout_id = k.checkout_id AND r.operation_id = k.operation_id
CROSS JOIN LATERAL (
    SELECT array_agg(a.kind || ':' || coalesce(a.outcome, '') ORDER BY a.number) AS calls,
        (array_agg(a.reference ORDER BY a.number DESC) FILTER (WHERE a.reference <> ''))[1] AS reference
    FROM attempts AS a
    WHERE a.merchant = r.merchant AND a.checkout_id = r.checkout_id AND a.operation_id = r.operation_id
      AND a.step = r.step
) AS c
ORDER BY r.merchant, r.checkout_id, r.operation_id, r.position
"""

_LEASE: Final = """
UPDATE operations AS o SET
    fencing_token = o.fencing_token + 1,
    claimable_at = now() + make_interval(secs => $4),
    claimed_at = coalesce(o.claimed_at, $5)
FROM unnest($1::text[], $2::text[], $3::text[]) AS c (merchant, checkout_id, id)
WHERE o.merchant = c.merchant AND o.checkout_id = c.checkout_id AND o.id = c.id
"""

_LOCK_HELD: Final = """
SELECT o.merchant, o.checkout_id, o.id AS operation_id, o.fencing_token
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[])
    AS c (merchant, checkout_id, operation_id, fencing_token)
JOIN operations AS o
    ON o.merchant = c.merchant AND o.checkout_id = c.checkout_id AND o.id = c.operation_id
WHERE o.fencing_token = c.fencing_token AND o.status = 'pending'
ORDER BY o.merchant, o.checkout_id, o.id
FOR UPDATE OF o
"""

# The token rises here too: a conclusion whose commit was not heard of comes again, and must not be decided on
# what it wrote itself.
_CONCLUDE: Final = """
UPDATE operations AS o SET
    fencing_token = o.fencing_token + 1,
    status = d.status, failure_code = d.failure_code, failure_message = d.failure_message,
    claimable_at = now() + make_interval(secs => d.claim_after_s),
    parked_reason = d.parked_reason,
    decided_at = CASE WHEN d.status <> 'pending' THEN $9::timestamptz END
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::float8[], $8::text[])
    AS d (merchant, checkout_id, id, status, failure_code, failure_message, claim_after_s, parked_reason)
WHERE o.merchant = d.merchant AND o.checkout_id = d.checkout_id AND o.id = d.id
"""

# The payment's own operation, which slept while the payment waited. Its fencing token rises: an answer to it
# that is on its way is late.
_SETTLE_PAYMENTS: Final = """
UPDATE operations AS o SET
    status = d.status, failure_code = d.failure_code, failure_message = d.failure_message,
    claimable_at = NULL, parked_reason = NULL, fencing_token = o.fencing_token + 1, decided_at = $6
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
    AS d (merchant, checkout_id, status, failure_code, failure_message)
WHERE o.merchant = d.merchant AND o.checkout_id = d.checkout_id AND o.id = 'payment' AND o.status = 'pending'
"""

_ANSWER: Final = """
UPDATE attempts AS a SET
    answered_at = n.answered_at, outcome = n.outcome, evidence = n.evidence::jsonb, reference = n.reference,
    late = n.late
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::integer[], $6::timestamptz[], $7::text[],
            $8::text[], $9::text[], $10::boolean[])
    AS n (merchant, checkout_id, operation_id, step, number, answered_at, outcome, evidence, reference, late)
WHERE a.merchant = n.merchant AND a.checkout_id = n.checkout_id AND a.operation_id = n.operation_id
  AND a.step = n.step AND a.number = n.number AND a.outcome IS NULL
"""

_ANOMALIES: Final = """
INSERT INTO anomalies (merchant, checkout_id, operation_id, kind, evidence, detected_at)
SELECT merchant, checkout_id, operation_id, kind, evidence::jsonb, $6
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
    AS a (merchant, checkout_id, operation_id, kind, evidence)
"""

# An effect that nobody decided on, of an operation that ended without one. Of every other operation a late
# approval is in doubt like any call without an answer, or says what was decided already; and an authorization
# that the PSP itself said has ended since is held no more.
_LATE_APPROVALS: Final = """
INSERT INTO anomalies (merchant, checkout_id, operation_id, kind, evidence, detected_at)
SELECT l.merchant, l.checkout_id, l.operation_id, $5, l.evidence::jsonb, $6
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
    AS l (merchant, checkout_id, operation_id, evidence)
JOIN operations AS o
    ON o.merchant = l.merchant AND o.checkout_id = l.checkout_id AND o.id = l.operation_id
JOIN payments AS p ON p.merchant = o.merchant AND p.checkout_id = o.checkout_id
WHERE o.status = 'failed' AND NOT (
    o.type = 'payment' AND (p.status = 'canceled' OR p.failure_code = 'action_expired')
    AND l.evidence::jsonb @> jsonb_build_object('reference', p.psp_reference, 'captured', false)
)
RETURNING merchant, checkout_id, operation_id
"""
LATE_APPROVAL: Final = "late_approval"


@dataclass(frozen=True, slots=True)
class Answered:
    """What a stored attempt came to; `evidence` is a JSON object, `reference` what the PSP named in it."""

    step: str
    number: int
    answered_at_us: int
    answer: Answer
    evidence: str
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Conclusion:
    """`decide` is pure and runs on the payment's locked row. Without `answered` there was no call; `evidence`
    is what there was in its place.
    """

    claim: Claim
    decide: Callable[[Payment], Decision]
    answered: Answered | None = None
    assessed: Assessed | None = None
    evidence: str = "{}"


async def claim(
    pool: Pool,
    limit: int,
    lease_s: float,
    now_us: int,
    monotonic: float,
    except_psps: Sequence[str] = (),
) -> list[Claim]:
    """At most `limit` due operations, ours until `monotonic + lease_s` or until claimed anew. Those of
    `except_psps` are claimed in turn, see `turns`.
    """
    with translated("claiming operations"):
        async with pool.acquire() as connection, connection.transaction():
            rows = await (
                connection.fetch(_CLAIMABLE_ELSEWHERE, limit, except_psps)
                if except_psps
                else connection.fetch(_CLAIMABLE, limit)
            )
            return await lease(connection, rows, lease_s, now_us, monotonic)


async def lease(
    connection: Connection, rows: Sequence[Record], lease_s: float, now_us: int, monotonic: float
) -> list[Claim]:
    """Makes claims of `rows`, which hold `CLAIMED` and are locked by this transaction."""
    if not rows:
        return []
    claims = await with_steps(connection, [claim_from(row, monotonic + lease_s) for row in rows])
    await connection.execute(_LEASE, *columns_of([claimed.key for claimed in claims]), lease_s, now_us)
    begun = [(claimed, begin(claimed.payment, now_us)) for claimed in claims]
    await advance(connection, [(following, None, None) for _claimed, following in begun if following])
    return [replace(claimed, payment=following or claimed.payment) for claimed, following in begun]


async def conclude(
    pool: Pool, conclusions: Sequence[Conclusion], now_us: int
) -> list[tuple[Conclusion, Decision | None]]:
    """What was decided for each, in order; None for those whose lease was lost: nothing of theirs stands, but
    an approval of a payment that has failed is told as an anomaly.
    """
    with translated("writing outcomes"):
        async with pool.acquire() as connection, connection.transaction():
            return await conclude_within(connection, conclusions, now_us)


async def conclude_within(
    connection: Connection, conclusions: Sequence[Conclusion], now_us: int
) -> list[tuple[Conclusion, Decision | None]]:
    """The same, in the caller's transaction."""
    payments = await _lock_held(connection, conclusions)
    decided = [
        (item, item.decide(payments[item.claim.key]) if item.claim.key in payments else None)
        for item in conclusions
    ]
    await write_decided(connection, decided, now_us)
    contradicted = await _store_late_approvals(connection, decided, now_us)
    return [
        (item, Decision(anomaly=LATE_APPROVAL))
        if decision is None and item.claim.key in contradicted
        else (item, decision)
        for item, decision in decided
    ]


async def _lock_held(
    connection: Connection, conclusions: Sequence[Conclusion]
) -> dict[tuple[str, str, str], Payment]:
    """The locked payment of every conclusion whose lease still holds."""
    payments = await lock_claimed(connection, [item.claim for item in conclusions])
    held = await connection.fetch(
        _LOCK_HELD, *columns_of([(*item.claim.key, item.claim.fencing_token) for item in conclusions])
    )
    return {_key(row): payments[row["merchant"], row["checkout_id"]] for row in held}


async def write_decided(
    connection: Connection, decided: Sequence[tuple[Conclusion, Decision | None]], now_us: int
) -> None:
    standing = [(item, decision) for item, decision in decided if decision]
    if standing:
        operations = columns_of([_concluded(item, decision) for item, decision in standing])
        await connection.execute(_CONCLUDE, *operations, now_us)
        await _settle_payments(connection, standing, now_us)
    answers = [
        _answer(item, item.answered, late=decision is None) for item, decision in decided if item.answered
    ]
    if answers:
        await connection.execute(_ANSWER, *columns_of(answers))
    await advance(
        connection,
        [
            (decision.payment, decision.event, shown_id(item.claim.operation_id))
            for item, decision in standing
            if decision.payment
        ],
    )
    await store_assessments(
        connection, [(item.claim, item.assessed) for item, _decision in standing if item.assessed], now_us
    )
    anomalies = [
        (*item.claim.key, decision.anomaly, item.answered.evidence if item.answered else item.evidence)
        for item, decision in standing
        if decision.anomaly
    ]
    await store_anomalies(connection, anomalies, now_us)


async def store_anomalies(
    connection: Connection, anomalies: Sequence[tuple[str, str, str, str, str]], now_us: int
) -> None:
    """Each: merchant, checkout id, operation id, kind and evidence, a JSON object."""
    if anomalies:
        await connection.execute(_ANOMALIES, *columns_of(anomalies), now_us)


async def _settle_payments(
    connection: Connection, standing: Sequence[tuple[Conclusion, Decision]], now_us: int
) -> None:
    settled = [
        (*item.claim.key[:2], "succeeded", "", "")
        if decision.settles_payment
        else (*item.claim.key[:2], "failed", *CANCELED_FAILURE)
        for item, decision in standing
        if decision.settles_payment is not None
    ]
    if settled:
        await connection.execute(_SETTLE_PAYMENTS, *columns_of(settled), now_us)


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


def _key(row: Record) -> tuple[str, str, str]:
    return row["merchant"], row["checkout_id"], row["operation_id"]


def claim_from(row: Record, lease_ends: float) -> Claim:
    return Claim(
        payment=payment_from(row),
        operation_id=row["operation_id"],
        fencing_token=row["fencing_token"] + 1,
        lease_ends=lease_ends,
        kind=OperationKind(row["type"]),
        amount=row["operation_amount"],
        created_at_us=row["operation_created_at"],
        risk_score=row["assessed_score"],
    )


async def with_steps(connection: Connection, claims: Sequence[Claim]) -> list[Claim]:
    """Nothing can be stored of an operation that nobody has claimed before."""
    again = [claimed.key for claimed in claims if claimed.fencing_token > 1]
    if not again:
        return list(claims)
    taken: dict[tuple[str, str, str], list[TakenStep]] = {}
    for row in await connection.fetch(_TAKEN, *columns_of(again)):
        request = PspRequest(row["method"], row["path"], row["idempotency_key"], row["body"])
        calls = tuple(_call_from(call) for call in row["calls"] or ())
        step = TakenStep(row["step"], request, row["first_sent_at"], calls, row["reference"] or "")
        taken.setdefault(_key(row), []).append(step)
    return [replace(claimed, steps=tuple(taken.get(claimed.key, ()))) for claimed in claims]


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
        answered.reference,
        late,
    )
