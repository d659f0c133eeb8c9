"""What clients ask of payments that Postgres knows: one transaction a request, under the payment's lock.

1. The payment's row is locked.
2. What is known under the same Idempotency-Key answers.
3. The operations that have not failed are read, in a statement of their own: it sees all that was committed
   before the lock.
4. The pure decision.
5. Operation, payment version and outbox row are written.

A crash before the commit leaves nothing; a commit whose answer was lost is found again by its key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from asyncpg import Record

from processor.operation_outcome import CANCELED_FAILURE
from processor.operation_request import (
    Accepted,
    Known,
    RefusalCode,
    Refused,
    Standing,
    Wanted,
    decide_changed,
    decide_requested,
)
from processor.psp.interface import OperationKind
from processor.storage.database import Connection, Pool, translated
from processor.storage.payments import ROW_COLUMNS, amend, locked_payments, operation_from
from tollgate.ids import PAYMENT_OPERATION
from tollgate.v1.payment_pb2 import MetadataEntry, Operation, Payment

_LOCK: Final = f"""
SELECT {ROW_COLUMNS} FROM payments AS p WHERE p.merchant = $1 AND p.checkout_id = $2 FOR UPDATE
"""  # noqa: S608

_OPERATION: Final = """
SELECT id, type, amount, status, failure_code, failure_message, created_at, fingerprint FROM operations
WHERE merchant = $1 AND checkout_id = $2
"""
_BY_KEY: Final = f"{_OPERATION} AND idempotency_key = $3"
_BY_ID: Final = f"{_OPERATION} AND id = $3 AND number > 0"

_STANDING: Final = """
SELECT type, amount, status FROM operations
WHERE merchant = $1 AND checkout_id = $2 AND number > 0 AND status <> 'failed'
"""

_INSERT: Final = """
INSERT INTO operations (merchant, checkout_id, id, type, amount, status, created_at, claimable_at, decided_at,
                        number, idempotency_key, fingerprint, reason)
VALUES ($1, $2, $3, $4, $5, CASE WHEN $6 THEN 'succeeded' ELSE 'pending' END, $7,
        CASE WHEN $6 THEN NULL ELSE now() END, CASE WHEN $6 THEN $7::timestamptz END, $8, $9, $10, $11)
"""

_NEVER_EXECUTE: Final = """
UPDATE operations SET status = 'failed', failure_code = $4, failure_message = $5, claimable_at = NULL,
    fencing_token = fencing_token + 1, decided_at = $6
WHERE merchant = $1 AND checkout_id = $2 AND id = $3 AND status = 'pending'
"""

_UNKNOWN: Final = Refused(
    RefusalCode.NOT_YET_PROCESSED, "The payment has not reached the processor yet. Try again in a moment."
)


async def request_operation(
    pool: Pool, merchant: str, checkout_id: str, wanted: Wanted, operation_id: str, now_us: int
) -> Accepted | Known | Refused:
    """`operation_id` is new. Raises OperationalError when Postgres can't answer; asking again is safe."""
    with translated("deciding on an operation"):
        async with pool.acquire() as connection, connection.transaction():
            payment = await _locked(connection, merchant, checkout_id)
            if payment is None:
                return _UNKNOWN
            known = await connection.fetchrow(_BY_KEY, merchant, checkout_id, wanted.idempotency_key)
            if known is not None:
                return _as_before(known, wanted)
            rows = await connection.fetch(_STANDING, merchant, checkout_id)
            standing = [
                Standing(OperationKind(row["type"]), row["amount"], row["status"] == "pending")
                for row in rows
            ]
            decided = decide_requested(payment, standing, wanted, operation_id, now_us)
            if isinstance(decided, Accepted):
                await _store(connection, decided, wanted, now_us)
            return decided


async def update_payment(
    pool: Pool,
    merchant: str,
    checkout_id: str,
    version: int,
    description: str | None,
    metadata: Sequence[MetadataEntry] | None,
    now_us: int,
) -> Payment | Refused:
    """The payment's next version. Raises OperationalError when Postgres can't answer."""
    with translated("changing a payment"):
        async with pool.acquire() as connection, connection.transaction():
            payment = await _locked(connection, merchant, checkout_id)
            if payment is None:
                return _UNKNOWN
            decided = decide_changed(payment, version, description, metadata, now_us)
            if isinstance(decided, Payment):
                await amend(connection, decided, "tollgate.payment.updated")
            return decided


async def find_operation(pool: Pool, merchant: str, checkout_id: str, operation_id: str) -> Operation | None:
    """One that clients see. Raises OperationalError when Postgres can't answer."""
    with translated("finding an operation"):
        row = await pool.fetchrow(_BY_ID, merchant, checkout_id, operation_id)
    return None if row is None else _operation(row)


async def _locked(connection: Connection, merchant: str, checkout_id: str) -> Payment | None:
    rows = await connection.fetch(_LOCK, merchant, checkout_id)
    payments = await locked_payments(connection, rows)
    return payments[0] if payments else None


async def _store(connection: Connection, accepted: Accepted, wanted: Wanted, now_us: int) -> None:
    payment, operation = accepted.payment, accepted.operation
    number = await amend(connection, payment, accepted.event, new_operation=operation.id)
    await connection.execute(
        _INSERT,
        payment.merchant,
        payment.checkout_id,
        operation.id,
        wanted.kind.value,
        operation.amount,
        accepted.is_settled,
        operation.created_at_us,
        number,
        wanted.idempotency_key,
        wanted.fingerprint(),
        wanted.reason,
    )
    if accepted.is_settled:
        key = payment.merchant, payment.checkout_id, PAYMENT_OPERATION
        await connection.execute(_NEVER_EXECUTE, *key, *CANCELED_FAILURE, now_us)


def _as_before(row: Record, wanted: Wanted) -> Known | Refused:
    if row["fingerprint"] == wanted.fingerprint():
        return Known(_operation(row))
    return Refused(
        RefusalCode.IDEMPOTENCY_KEY_REUSED,
        f"This Idempotency-Key asked for something else of this payment before: operation {row['id']}.",
    )


def _operation(row: Record) -> Operation:
    return operation_from(
        row["id"],
        row["type"],
        row["amount"],
        row["status"],
        row["failure_code"],
        row["failure_message"],
        row["created_at"],
    )
