"""The payment as clients and consumers of events see it: one shape, made from the one message.

`client_secret` is not part of it: it is derived where a client is answered, and never in an event.
"""

from __future__ import annotations

from typing import Any, Final

from tollgate.clock import rfc3339
from tollgate.status import NAME
from tollgate.v1.payment_pb2 import Capture, Failure, Operation, OperationStatus, OperationType, Payment

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


def payment_document(payment: Payment) -> dict[str, Any]:
    """JSON-ready, every field present, an absent one null."""
    created_at = rfc3339(payment.created_at_us)
    document = {
        "payment_checkout_id": payment.checkout_id,
        "status": NAME[payment.status],
        "amount": payment.amount,
        "currency": payment.currency,
        "captured_amount": 0,
        "refunded_amount": 0,
        "capture": _CAPTURE[payment.capture],
        "version": payment.version,
        "psp": payment.psp,
        "psp_reference": None,
        "risk_score": None,
        "failure": None,
        "next_action": None,
        "customer_id": payment.customer_id or None,
        "description": payment.description or None,
        "metadata": {entry.key: entry.value for entry in payment.metadata},
        "operations": [],
        "created_at": created_at,
        "updated_at": created_at,
    }
    if document["version"]:  # 0 is the acceptance: nothing has been decided, and asking costs as much again
        document.update(_decided(payment))
    return document


def _decided(payment: Payment) -> dict[str, Any]:
    return {
        "captured_amount": payment.captured_amount,
        "refunded_amount": payment.refunded_amount,
        "psp_reference": payment.psp_reference or None,
        "risk_score": payment.risk_score if payment.HasField("risk_score") else None,
        "failure": _failure(payment.failure) if payment.HasField("failure") else None,
        "next_action": {"type": payment.next_action.type, "url": payment.next_action.url}
        if payment.HasField("next_action")
        else None,
        "operations": [operation_document(operation) for operation in payment.operations],
        "updated_at": rfc3339(payment.updated_at_us),
    }


def operation_document(operation: Operation) -> dict[str, Any]:
    return {
        "id": operation.id,
        "type": _OPERATION_TYPE[operation.type],
        "amount": operation.amount,
        "status": _OPERATION_STATUS[operation.status],
        "failure": _failure(operation.failure) if operation.HasField("failure") else None,
        "created_at": rfc3339(operation.created_at_us),
    }


def _failure(failure: Failure) -> dict[str, str]:
    return {"code": failure.code, "message": failure.message}
