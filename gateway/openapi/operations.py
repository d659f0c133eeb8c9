"""Capture, cancel, refunds and their operations, as they are answered today."""

from __future__ import annotations

from typing import Any, Final

from gateway.openapi import examples
from gateway.openapi.answers import NO_STORE, Answers, Problems, header, json_answer
from gateway.openapi.payments import PATH_ID, PAYMENT_PATH, Operations
from gateway.openapi.schemas import Schema, reference
from gateway.operation_requests import IDEMPOTENCY_KEY_HEADER

_KEY: Final = {
    "name": IDEMPOTENCY_KEY_HEADER,
    "in": "header",
    "required": True,
    "description": "Your own key for this operation, exactly once; its scope is the payment. The same key "
    "and content again is the same operation. No card number.",
    "schema": reference("IdempotencyKey"),
    "example": examples.IDEMPOTENCY_KEY,
}
_PATH_OPERATION: Final = {
    "name": "operation_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9_]{1,64}$"},
    "example": examples.OPERATION_ID,
}
_WHILE_PENDING: Final = {
    "Retry-After": header({"const": "2"}, "There while the operation is pending.", required=False)
}
_LOCATION: Final = {
    "Location": header({"type": "string", "pattern": "^/v1/payments/[^/]+/operations/[^/]+$"})
}
_REPLAYED: Final = {"Idempotent-Replayed": header({"const": "true"})}
_DECIDED: Final = (
    "Decided when it is answered: 202 is an operation that will be carried out, exactly once. Operations "
    "under way count as if they had succeeded, so of two that are too much together the second is refused."
)


def operation_paths(problems: Problems) -> dict[str, Operations]:
    return {
        f"{PAYMENT_PATH}/capture": _path(
            problems,
            "capturePayment",
            "Capture an authorized payment",
            "Once, at most what is authorized; the rest is released.",
            reference("CaptureRequest"),
            (examples.CAPTURES, examples.CAPTURE),
        ),
        f"{PAYMENT_PATH}/cancel": _path(
            problems,
            "cancelPayment",
            "Cancel a payment",
            "Before it was sent to the PSP it is canceled at once; after that an authorization is voided, or "
            "the operation fails. It never refunds.",
            reference("CancelRequest"),
            (examples.CANCELS, examples.CANCEL),
        ),
        f"{PAYMENT_PATH}/refunds": _path(
            problems,
            "refundPayment",
            "Refund a captured payment",
            "Several partial ones are possible, up to what was captured.",
            reference("RefundRequest"),
            (examples.REFUNDS, examples.REFUND),
        ),
        f"{PAYMENT_PATH}/operations/{{operation_id}}": {
            "parameters": [PATH_ID, _PATH_OPERATION],
            "get": _read(problems),
        },
    }


def _path(
    problems: Problems,
    name: str,
    summary: str,
    description: str,
    schema: Schema,
    shown: tuple[dict[str, Any], dict[str, Any]],
) -> Operations:
    sent, pending = shown
    operation: Answers = {
        "operationId": name,
        "tags": ["operations"],
        "summary": summary,
        "description": f"{description}\n\n{_DECIDED}",
        "security": [{"secretKey": []}],
        "parameters": [_KEY],
        "requestBody": {
            "required": False,
            "content": {
                "application/json": {
                    "schema": schema,
                    "examples": {key: {"value": value} for key, value in sent.items()},
                }
            },
        },
        "responses": {
            "200": json_answer(
                "Known already: the same key and content came before. The operation as it is now.",
                reference("Operation"),
                NO_STORE | _WHILE_PENDING | _REPLAYED,
                {"pending": pending},
            ),
            "202": json_answer(
                "Accepted, and durable. A cancel that nobody was asked for has succeeded already.",
                reference("Operation"),
                NO_STORE | _WHILE_PENDING | _LOCATION,
                {"pending": pending},
            ),
            **problems.answers(
                "missing_idempotency_key",
                "unauthorized",
                "not_found",
                "not_yet_processed",
                "invalid_transition",
                "unsupported_media_type",
                "amount_too_large",
                "idempotency_key_reused",
                "not_ready",
                "ledger_unavailable",
            ),
        },
    }
    return {"parameters": [PATH_ID], "post": operation}


def _read(problems: Problems) -> Operations:
    told = {
        "pending": examples.REFUND,
        "succeeded": examples.REFUND_SUCCEEDED,
        "failed": examples.REFUND_FAILED,
    }
    return {
        "operationId": "getOperation",
        "tags": ["operations"],
        "summary": "The operation as it is now",
        "description": "The last ten of a payment are in the payment too.",
        "security": [{"secretKey": []}],
        "parameters": [],
        "responses": {
            "200": json_answer("The operation.", reference("Operation"), NO_STORE | _WHILE_PENDING, told),
            **problems.answers("unauthorized", "not_found", "not_ready", "ledger_unavailable"),
        },
    }
