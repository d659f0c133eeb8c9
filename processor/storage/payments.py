"""A payment's row and the `Payment` message: the two forms it has here, and the one way from a version to
the next.

Whoever advances a payment holds its row's lock and hands in the next version whole; the row and its outbox
entry are written by one statement, so there is no version without its entry.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, Final

import orjson
from asyncpg import Record

from processor.storage.database import Connection, Pool, columns_of, translated
from tollgate.status import BY_NAME, NAME
from tollgate.v1.payment_pb2 import (
    Capture,
    Failure,
    MetadataEntry,
    NextAction,
    Operation,
    OperationStatus,
    OperationType,
    Payment,
)

# Who relays a payment's outbox rows is decided by slice: one relay a slice, so that versions stay in order.
SLICES: Final = 16
OPERATIONS_SHOWN: Final = 10

_CAPTURE_NAME: Final = {Capture.CAPTURE_AUTOMATIC: "automatic", Capture.CAPTURE_MANUAL: "manual"}
_CAPTURE: Final = {name: capture for capture, name in _CAPTURE_NAME.items()}
_OPERATION_TYPE: Final = {
    "capture": OperationType.OPERATION_TYPE_CAPTURE,
    "cancel": OperationType.OPERATION_TYPE_CANCEL,
    "refund": OperationType.OPERATION_TYPE_REFUND,
}
_OPERATION_STATUS: Final = {
    "pending": OperationStatus.OPERATION_STATUS_PENDING,
    "succeeded": OperationStatus.OPERATION_STATUS_SUCCEEDED,
    "failed": OperationStatus.OPERATION_STATUS_FAILED,
}

# Everything of payments p that `payment_from` reads; the operations that clients see come oldest first.
COLUMNS: Final = f"""
    p.merchant, p.checkout_id, p.status, p.version, p.amount, p.currency, p.capture, p.payment_method, p.psp,
    p.customer_id, p.description, p.return_url, p.metadata, p.fingerprint, p.traceparent, p.created_at,
    p.updated_at, p.expires_at, p.captured_amount, p.refunded_amount, p.psp_reference, p.risk_score,
    p.failure_code, p.failure_message, p.next_action_url,
    (SELECT json_agg(json_build_array(shown.id, shown.type, shown.amount, shown.status, shown.failure_code,
                                      shown.failure_message,
                                      (extract(epoch FROM shown.created_at) * 1000000)::bigint)
                     ORDER BY shown.created_at)
     FROM (SELECT * FROM operations
           WHERE merchant = p.merchant AND checkout_id = p.checkout_id AND type <> 'payment'
           ORDER BY created_at DESC LIMIT {OPERATIONS_SHOWN}) AS shown) AS shown_operations"""  # noqa: S608

_ADVANCE: Final = """
WITH next AS (
    SELECT * FROM unnest(
        $1::text[], $2::text[], $3::text[], $4::bigint[], $5::timestamptz[], $6::bigint[], $7::bigint[],
        $8::text[], $9::smallint[], $10::text[], $11::text[], $12::text[], $13::smallint[], $14::bytea[]
    ) AS n (merchant, checkout_id, status, version, updated_at, captured_amount, refunded_amount,
            psp_reference, risk_score, failure_code, failure_message, next_action_url, slice, snapshot)
), moved AS (
    UPDATE payments AS p SET
        status = n.status, version = n.version, updated_at = n.updated_at,
        captured_amount = n.captured_amount, refunded_amount = n.refunded_amount,
        psp_reference = n.psp_reference, risk_score = n.risk_score, failure_code = n.failure_code,
        failure_message = n.failure_message, next_action_url = n.next_action_url
    FROM next AS n WHERE p.merchant = n.merchant AND p.checkout_id = n.checkout_id
)
INSERT INTO outbox (merchant, checkout_id, version, slice, event_type, snapshot, created_at)
SELECT merchant, checkout_id, version, slice, 'tollgate.payment.' || status, snapshot, updated_at FROM next
"""

_FIND: Final = f"SELECT {COLUMNS} FROM payments AS p WHERE merchant = $1 AND checkout_id = $2"  # noqa: S608


def slice_of(merchant: str, checkout_id: str) -> int:
    """Which relay slice a payment belongs to. The same for every version of it."""
    return zlib.crc32(f"{merchant}/{checkout_id}".encode()) % SLICES


def payment_from(row: Record) -> Payment:
    """The whole payment in `row`, which holds `COLUMNS`."""
    payment = Payment(
        merchant=row["merchant"],
        checkout_id=row["checkout_id"],
        status=BY_NAME[row["status"]],
        version=row["version"],
        amount=row["amount"],
        currency=row["currency"],
        capture=_CAPTURE[row["capture"]],
        payment_method=row["payment_method"],
        psp=row["psp"],
        customer_id=row["customer_id"],
        description=row["description"],
        return_url=row["return_url"],
        metadata=[MetadataEntry(key=key, value=value) for key, value in orjson.loads(row["metadata"])],
        fingerprint=row["fingerprint"],
        traceparent=row["traceparent"],
        created_at_us=row["created_at"],
        updated_at_us=row["updated_at"],
        expires_at_us=row["expires_at"],
        captured_amount=row["captured_amount"],
        refunded_amount=row["refunded_amount"],
        psp_reference=row["psp_reference"],
        risk_score=row["risk_score"],
    )
    if row["failure_code"]:
        payment.failure.CopyFrom(Failure(code=row["failure_code"], message=row["failure_message"]))
    if row["next_action_url"]:
        payment.next_action.CopyFrom(NextAction(type="redirect", url=row["next_action_url"]))
    if row["shown_operations"]:
        payment.operations.extend(
            _operation_from(*fields) for fields in orjson.loads(row["shown_operations"])
        )
    return payment


def _operation_from(
    operation_id: str, kind: str, amount: int, status: str, code: str, message: str, created_at_us: int
) -> Operation:
    return Operation(
        id=operation_id,
        type=_OPERATION_TYPE[kind],
        amount=amount,
        status=_OPERATION_STATUS[status],
        failure=Failure(code=code, message=message) if code else None,
        created_at_us=created_at_us,
    )


def inserted_columns(payments: Sequence[Payment]) -> list[list[Any]]:
    """What a new payment's row and its first outbox entry are made of, one list a column."""
    rows = [
        (
            payment.merchant,
            payment.checkout_id,
            payment.version,
            payment.amount,
            payment.currency,
            _CAPTURE_NAME[payment.capture],
            payment.payment_method,
            payment.psp,
            payment.customer_id,
            payment.description,
            payment.return_url,
            orjson.dumps([[entry.key, entry.value] for entry in payment.metadata]).decode(),
            payment.fingerprint,
            payment.traceparent,
            payment.created_at_us,
            payment.updated_at_us,
            payment.expires_at_us,
            slice_of(payment.merchant, payment.checkout_id),
            payment.SerializeToString(),
        )
        for payment in payments
    ]
    return columns_of(rows)


async def advance(connection: Connection, payments: Sequence[Payment]) -> None:
    """Writes each payment's next version and its outbox entry. The caller holds the rows' locks."""
    if not payments:
        return
    rows = [
        (
            payment.merchant,
            payment.checkout_id,
            NAME[payment.status],
            payment.version,
            payment.updated_at_us,
            payment.captured_amount,
            payment.refunded_amount,
            payment.psp_reference,
            payment.risk_score if payment.HasField("risk_score") else None,
            payment.failure.code,
            payment.failure.message,
            payment.next_action.url,
            slice_of(payment.merchant, payment.checkout_id),
            payment.SerializeToString(),
        )
        for payment in payments
    ]
    await connection.execute(_ADVANCE, *columns_of(rows))


async def find_payment(pool: Pool, merchant: str, checkout_id: str) -> Payment | None:
    """With the operations that clients see. Raises OperationalError when Postgres can't answer."""
    with translated("finding a payment"):
        row = await pool.fetchrow(_FIND, merchant, checkout_id)
    return None if row is None else payment_from(row)
