"""Operations that wait for a person: shown with everything that is known of them, and ended by his word.

The word, what it makes of the payment and the event about it are one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from asyncpg import Record

from processor.operation import Claim
from processor.operation_outcome import Ordered
from processor.outcome import Decision
from processor.parked import Word, decide_resolved
from processor.psp.interface import OperationKind
from processor.storage.database import Connection, Pool, columns_of, translated
from processor.storage.operations import Conclusion, conclude_within
from tollgate.errors import RejectedInput
from tollgate.v1.payment_pb2 import Payment

_PARKED: Final = """
SELECT o.merchant, o.checkout_id, o.id, o.type, o.amount, p.currency, o.psp, o.parked_reason, o.created_at,
    p.status, p.psp_reference, o.fencing_token
FROM operations AS o
JOIN payments AS p ON p.merchant = o.merchant AND p.checkout_id = o.checkout_id
WHERE o.parked_reason IS NOT NULL
"""
_PAGE: Final = f"""
{_PARKED} AND (o.merchant, o.checkout_id, o.id) > ($1, $2, $3)
ORDER BY o.merchant, o.checkout_id, o.id LIMIT $4
"""
_ONE: Final = f"{_PARKED} AND o.merchant = $1 AND o.checkout_id = $2 AND o.id = $3"

_EVIDENCE: Final = """
SELECT r.merchant, r.checkout_id, r.operation_id, r.step, r.idempotency_key, a.kind, a.sent_at, a.answered_at,
    a.outcome, a.late, a.reference, a.evidence
FROM unnest($1::text[], $2::text[], $3::text[]) AS k (merchant, checkout_id, operation_id)
JOIN psp_requests AS r
    ON r.merchant = k.merchant AND r.checkout_id = k.checkout_id AND r.operation_id = k.operation_id
JOIN attempts AS a
    ON a.merchant = r.merchant AND a.checkout_id = r.checkout_id AND a.operation_id = r.operation_id
    AND a.step = r.step
ORDER BY r.merchant, r.checkout_id, r.operation_id, r.position, a.number
"""

_RESOLUTION: Final = """
INSERT INTO resolutions (merchant, checkout_id, operation_id, parked_reason, verdict, psp_reference, reason,
                         decided_by, decided_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
RETURNING id
"""

Key = tuple[str, str, str]  # merchant, checkout id, operation id


@dataclass(frozen=True, slots=True)
class EvidenceCall:
    """One call, as it was stored. Without `outcome` nobody heard of it again."""

    step: str
    idempotency_key: str
    kind: str
    sent_at_us: int
    answered_at_us: int | None
    outcome: str | None
    is_late: bool
    reference: str
    evidence: str | None  # JSON


@dataclass(frozen=True, slots=True)
class ParkedOperation:
    """`status` and `psp_reference` are its payment's."""

    key: Key
    kind: OperationKind
    amount: int
    currency: str
    psp: str
    reason: str
    created_at_us: int
    status: str
    psp_reference: str
    calls: tuple[EvidenceCall, ...]


async def parked_operations(pool: Pool, after: Key, limit: int) -> list[ParkedOperation]:
    """At most `limit`, by their keys, those that follow `after`. Raises OperationalError."""
    with translated("listing what is parked"):
        rows = await pool.fetch(_PAGE, *after, limit)
        keys = [_key(row) for row in rows]
        evidence = await pool.fetch(_EVIDENCE, *columns_of(keys)) if keys else []
    return [_operation(row, evidence) for row in rows]


async def resolve_parked(pool: Pool, key: Key, word: Word, now_us: int) -> tuple[int, Decision]:
    """The number of the record, and what was decided. Raises RejectedInput, and nothing is changed, when the
    operation is not parked or can't end so.
    """
    with translated("recording a decision"):
        async with pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(_ONE, *key)
            if row is None:
                raise RejectedInput(
                    f"No operation {'/'.join(key)} is parked. Look at `tollgate payments parked`."
                )
            decision = await _conclude(connection, row, word, now_us)
            number = await connection.fetchval(
                _RESOLUTION,
                *key,
                row["parked_reason"],
                word.verdict.value,
                word.psp_reference,
                word.reason,
                word.decided_by,
                now_us,
            )
            return int(number), decision


async def _conclude(connection: Connection, row: Record, word: Word, now_us: int) -> Decision:
    """As if the PSP had answered: on the payment's row as it is, locked."""
    ordered = Ordered(row["id"], OperationKind(row["type"]), row["amount"])
    claim = Claim(
        payment=Payment(merchant=row["merchant"], checkout_id=row["checkout_id"]),
        operation_id=ordered.id,
        fencing_token=row["fencing_token"],
        lease_ends=0.0,
        kind=ordered.kind,
        amount=ordered.amount,
        created_at_us=row["created_at"],
    )
    conclusion = Conclusion(claim, lambda payment: decide_resolved(payment, ordered, word, now_us))
    [(_conclusion, decision)] = await conclude_within(connection, [conclusion], now_us)
    if decision is None:
        raise RejectedInput(
            f"Operation {'/'.join(_key(row))} has moved on just now. Look at the payment again."
        )
    return decision


def _key(row: Record) -> Key:
    return row["merchant"], row["checkout_id"], row["id"]


def _operation(row: Record, evidence: Sequence[Record]) -> ParkedOperation:
    calls = tuple(EvidenceCall(*call[3:]) for call in evidence if tuple(call[:3]) == _key(row))
    return ParkedOperation(
        key=_key(row),
        kind=OperationKind(row["type"]),
        amount=row["amount"],
        currency=row["currency"],
        psp=row["psp"],
        reason=row["parked_reason"],
        created_at_us=row["created_at"],
        status=row["status"],
        psp_reference=row["psp_reference"],
        calls=calls,
    )
