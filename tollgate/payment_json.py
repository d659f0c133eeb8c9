"""The payment as clients and consumers of events see it: one shape, made from the one message.

`client_secret` is not part of it: it is derived where a client is answered, and never in an event.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tollgate.clock import rfc3339
from tollgate.status import NAME
from tollgate.v1.payment_pb2 import (
    Capture,
    Failure,
    NextAction,
    Operation,
    OperationStatus,
    OperationType,
    Payment,
)

_CAPTURE: Final = {Capture.CAPTURE_AUTOMATIC: "automatic", Capture.CAPTURE_MANUAL: "manual"}
_OPERATION_TYPE: Final = {
    OperationType.OPERATION_TYPE_CAPTURE: "capture",
    OperationType.OPERATION_TYPE_CANCEL: "cancel",
    OperationType.OPERATION_TYPE_REFUND: "refund",
}
_OPERATION_STATUS: Final = {
    OperationStatus.OPERATION_STATUS_PENDING: "pending",
    OperationStatus.OPERATION_STATUS_SUCCEEDED: "succeeded",
    OperationStatus.OPERATION_STATUS_FAILED: "failed",
}


def accepted_document(
    checkout_id: str,
    amount: int,
    currency: str,
    capture: str,
    psp: str,
    customer_id: str | None,
    description: str | None,
    metadata: Mapping[str, str],
    created_at_us: int,
) -> dict[str, Any]:
    """JSON-ready, every field present, an absent one null: a payment of which nothing has been decided."""
    created_at = rfc3339(created_at_us)
    return {
        "payment_checkout_id": checkout_id,
        "status": "pending",
        "amount": amount,
        "currency": currency,
        "captured_amount": 0,
        "refunded_amount": 0,
        "capture": capture,
        "version": 0,
        "psp": psp,
        "psp_reference": None,
        "risk_score": None,
        "failure": None,
        "next_action": None,
        "customer_id": customer_id or None,
        "description": description or None,
        "metadata": metadata,
        "operations": [],
        "created_at": created_at,
        "updated_at": created_at,
    }


def payment_document(payment: Payment) -> dict[str, Any]:
    """The same shape, with what has been decided since it was accepted at version 0."""
    document = accepted_document(
        payment.checkout_id,
        payment.amount,
        payment.currency,
        _CAPTURE[payment.capture],
        payment.psp,
        payment.customer_id,
        payment.description,
        {entry.key: entry.value for entry in payment.metadata},
        payment.created_at_us,
    )
    if payment.version:
        document.update(
            status=NAME[payment.status],
            captured_amount=payment.captured_amount,
            refunded_amount=payment.refunded_amount,
            version=payment.version,
            psp_reference=payment.psp_reference or None,
            risk_score=payment.risk_score if payment.HasField("risk_score") else None,
            failure=_failure(payment.failure) if payment.HasField("failure") else None,
            next_action=_next_action(payment.next_action) if payment.HasField("next_action") else None,
            operations=[operation_document(operation) for operation in payment.operations],
            updated_at=rfc3339(payment.updated_at_us),
        )
    return document


def operation_document(operation: Operation) -> dict[str, Any]:
    return {
        "id": operation.id,
        "type": _OPERATION_TYPE[operation.type],
        "amount": operation.amount,
        "status": _OPERATION_STATUS[operation.status],
        "failure": _failure(operation.failure) if operation.HasField("failure") else None,
        "created_at": rfc3339(operation.created_at_us),
    }


def _next_action(action: NextAction) -> dict[str, str]:
    return {"type": action.type, "url": action.url}


def _failure(failure: Failure) -> dict[str, str]:
    return {"code": failure.code, "message": failure.message}
