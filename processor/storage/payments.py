"""A payment's row and the `Payment` message: the two forms it has here, and the one way from a version to
the next.

Whoever advances a payment holds its row's lock and hands in the next version whole; the row and its outbox
entry are written by one statement, so there is no version without its entry.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any, Final

import orjson
from asyncpg import Record

from processor.operation_request import OPERATIONS_SHOWN
from processor.storage.database import Connection, Pool, columns_of, translated
from tollgate.ids import PAYMENT_OPERATION
from tollgate.status import BY_NAME, NAME, PENDING
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

# Everything of payments p that `payment_from` reads, but for its operations.
ROW_COLUMNS: Final = """
    p.merchant, p.checkout_id, p.status, p.version, p.amount, p.currency, p.capture, p.payment_method, p.psp,
    p.customer_id, p.description, p.return_url, p.metadata, p.fingerprint, p.traceparent, p.created_at,
    p.updated_at, p.expires_at, p.captured_amount, p.refunded_amount, p.psp_reference, p.risk_score,
    p.failure_code, p.failure_message, p.next_action_url, p.operation_count"""

# The operations that clients see, oldest first. A statement that locks payments reads them after that in one
# of its own: when it waited for a lock it would see them as they were before.
_SHOWN: Final = f"""
    CASE WHEN p.operation_count > 0 THEN (
        SELECT json_agg(json_build_array(shown.id, shown.type, shown.amount, shown.status, shown.failure_code,
                                         shown.failure_message,
                                         (extract(epoch FROM shown.created_at) * 1000000)::bigint)
                        ORDER BY shown.number)
        FROM (SELECT * FROM operations AS o
              WHERE o.merchant = p.merchant AND o.checkout_id = p.checkout_id AND o.number > 0
              ORDER BY o.number DESC LIMIT {OPERATIONS_SHOWN}) AS shown) END AS shown_operations"""  # noqa: S608

COLUMNS: Final = f"{ROW_COLUMNS}, {_SHOWN}"

_SHOWN_OF: Final = f"""
SELECT p.merchant, p.checkout_id, {_SHOWN}
FROM unnest($1::text[], $2::text[]) AS k (merchant, checkout_id)
JOIN payments AS p ON p.merchant = k.merchant AND p.checkout_id = k.checkout_id
"""  # noqa: S608

_ADVANCE: Final = """
WITH next AS (
    SELECT * FROM unnest(
        $1::text[], $2::text[], $3::text[], $4::bigint[], $5::timestamptz[], $6::bigint[], $7::bigint[],
        $8::text[], $9::smallint[], $10::text[], $11::text[], $12::text[], $13::smallint[], $14::bytea[],
        $15::text[], $16::text[]
    ) AS n (merchant, checkout_id, status, version, updated_at, captured_amount, refunded_amount,
            psp_reference, risk_score, failure_code, failure_message, next_action_url, slice, snapshot,
            event_type, operation_id)
), moved AS (
    UPDATE payments AS p SET
        status = n.status, version = n.version, updated_at = n.updated_at,
        captured_amount = n.captured_amount, refunded_amount = n.refunded_amount,
        psp_reference = n.psp_reference, risk_score = n.risk_score, failure_code = n.failure_code,
        failure_message = n.failure_message, next_action_url = n.next_action_url
    FROM next AS n WHERE p.merchant = n.merchant AND p.checkout_id = n.checkout_id
)
INSERT INTO outbox (merchant, checkout_id, version, slice, event_type, snapshot, created_at, operation_id)
SELECT merchant, checkout_id, version, slice, event_type, snapshot, updated_at, operation_id FROM next
"""

# What a client's request changes of a payment: never its amounts, nor what the PSP said.
_AMEND: Final = """
WITH amended AS (
    UPDATE payments SET
        status = $3, version = $4, updated_at = $5, failure_code = $6, failure_message = $7, description = $8,
        metadata = $9::json, operation_count = operation_count + $10
    WHERE merchant = $1 AND checkout_id = $2
    RETURNING operation_count
), told AS (
    INSERT INTO outbox (merchant, checkout_id, version, slice, event_type, snapshot, created_at, operation_id)
    VALUES ($1, $2, $4, $11, $12, $13, $5, $14)
)
SELECT operation_count FROM amended
"""

_TELL: Final = """
INSERT INTO outbox (merchant, checkout_id, version, slice, event_type, snapshot, created_at, with_acceptance)
SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::smallint[], $5::text[], $6::bytea[],
                     $7::timestamptz[], $8::boolean[]) AS o
"""

_FIND: Final = f"""
SELECT {COLUMNS} FROM unnest($1::text[], $2::text[]) AS k (merchant, checkout_id)
JOIN payments AS p ON p.merchant = k.merchant AND p.checkout_id = k.checkout_id
"""  # noqa: S608


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
        metadata=metadata_from(row["metadata"]),
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
    if shown := row.get("shown_operations"):
        payment.operations.extend(_operations_from(shown))
    return payment


async def locked_payments(connection: Connection, rows: Sequence[Record]) -> list[Payment]:
    """The whole payments of `rows`, which hold `ROW_COLUMNS` and are locked."""
    payments = [payment_from(row) for row in rows]
    keys = [(row["merchant"], row["checkout_id"]) for row in rows if row["operation_count"]]
    if keys:
        shown = {
            (row["merchant"], row["checkout_id"]): row["shown_operations"]
            for row in await connection.fetch(_SHOWN_OF, *columns_of(keys))
        }
        for payment in payments:
            if found := shown.get((payment.merchant, payment.checkout_id)):
                payment.operations.extend(_operations_from(found))
    return payments


def _operations_from(shown: str) -> list[Operation]:
    return [operation_from(*fields) for fields in orjson.loads(shown)]


def operation_from(
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
    """What a new payment's row is made of, one list a column."""
    rows = [
        (
            payment.merchant,
            payment.checkout_id,
            NAME[payment.status],
            payment.version,
            payment.amount,
            payment.currency,
            _CAPTURE_NAME[payment.capture],
            payment.payment_method,
            payment.psp,
            payment.customer_id,
            payment.description,
            payment.return_url,
            stored_metadata(payment.metadata),
            payment.fingerprint,
            payment.traceparent,
            payment.created_at_us,
            payment.updated_at_us,
            payment.expires_at_us,
        )
        for payment in payments
    ]
    return columns_of(rows)


async def tell(connection: Connection, payments: Sequence[Payment]) -> None:
    """The outbox entries of new payments, one each. Of one that is begun already it tells version 1 as well,
    which differs in status and version alone.
    """
    rows = [
        (
            payment.merchant,
            payment.checkout_id,
            payment.version,
            slice_of(payment.merchant, payment.checkout_id),
            f"tollgate.payment.{NAME[payment.status]}",
            payment.SerializeToString(),
            payment.updated_at_us,
            payment.status != PENDING,
        )
        for payment in payments
    ]
    await connection.execute(_TELL, *columns_of(rows))


def shown_id(operation_id: str) -> str | None:
    """None for the payment's own operation, which clients don't see."""
    return None if operation_id == PAYMENT_OPERATION else operation_id


async def advance(connection: Connection, versions: Sequence[tuple[Payment, str | None, str | None]]) -> None:
    """Writes each payment's next version and its outbox entry, under the event's name or the status', with
    the operation that it is about. The caller holds the rows' locks.
    """
    if not versions:
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
            event or f"tollgate.payment.{NAME[payment.status]}",
            operation_id,
        )
        for payment, event, operation_id in versions
    ]
    await connection.execute(_ADVANCE, *columns_of(rows))


async def amend(
    connection: Connection, payment: Payment, event: str | None, new_operation: str | None = None
) -> int:
    """Writes the version that a client's request made, and its outbox entry. The caller holds the row's lock.
    Returns how many operations clients see of it now.
    """
    return int(
        await connection.fetchval(
            _AMEND,
            payment.merchant,
            payment.checkout_id,
            NAME[payment.status],
            payment.version,
            payment.updated_at_us,
            payment.failure.code,
            payment.failure.message,
            payment.description,
            stored_metadata(payment.metadata),
            0 if new_operation is None else 1,
            slice_of(payment.merchant, payment.checkout_id),
            event or f"tollgate.payment.{NAME[payment.status]}",
            payment.SerializeToString(),
            new_operation,
        )
    )


def stored_metadata(metadata: Iterable[MetadataEntry]) -> str:
    """In the client's order."""
    return orjson.dumps([[entry.key, entry.value] for entry in metadata]).decode()


def metadata_from(stored: str) -> list[MetadataEntry]:
    return [MetadataEntry(key=key, value=value) for key, value in orjson.loads(stored)]


async def find_payments(pool: Pool, names: Sequence[tuple[str, str]]) -> list[Payment]:
    """Those that are there, in any order, with the operations that clients see.

    `names` are pairs of merchant and checkout id. Raises OperationalError when Postgres can't answer.
    """
    with translated("finding payments"):
        rows = await pool.fetch(_FIND, [merchant for merchant, _ in names], [one for _, one in names])
    return [payment_from(row) for row in rows]
