"""The examples that README, the page and the tests show: written once, sent to a live shard by a test."""

from __future__ import annotations

from typing import Any, Final

Json = dict[str, Any]

CHECKOUT_ID: Final = "order-10001"

# By name: what POST /v1/payments is sent, each answered 202 under an id of its own.
REQUESTS: Final[dict[str, Json]] = {
    "smallest": {"amount": 1999, "currency": "EUR", "payment_method": "pm_ok"},
    "everything": {
        "amount": 1999,
        "currency": "EUR",
        "payment_method": "pm_ok",
        "capture": "automatic",
        "customer_id": "customer-77",
        "description": "Two tickets",
        "return_url": "https://shop.example/back",
        "metadata": {"basket": "b-5512", "channel": "web"},
        "payment_checkout_id": CHECKOUT_ID,
    },
    "authorize only": {"amount": 1999, "currency": "EUR", "payment_method": "pm_ok", "capture": "manual"},
}

_SECRET: Final = "demo-3p0pHvYVkT2bQXGqZ3sBv0cXkX9m1yFz4Qk8wJtUe2I"  # noqa: S105 - made up
ACCEPTED: Final[Json] = {
    "payment_checkout_id": CHECKOUT_ID,
    "status": "pending",
    "amount": 1999,
    "currency": "EUR",
    "captured_amount": 0,
    "refunded_amount": 0,
    "capture": "automatic",
    "version": 0,
    "psp": "simulator",
    "psp_reference": None,
    "risk_score": None,
    "failure": None,
    "next_action": None,
    "customer_id": "customer-77",
    "description": "Two tickets",
    "metadata": {"basket": "b-5512", "channel": "web"},
    "operations": [],
    "created_at": "2026-11-21T10:00:00.000000Z",
    "updated_at": "2026-11-21T10:00:00.000000Z",
    "client_secret": _SECRET,
}
SUCCEEDED: Final[Json] = ACCEPTED | {
    "status": "succeeded",
    "captured_amount": 1999,
    "version": 2,
    "psp_reference": "ch_8f2a41c0",
    "updated_at": "2026-11-21T10:00:00.045112Z",
}
FAILED: Final[Json] = ACCEPTED | {
    "status": "failed",
    "version": 2,
    "psp_reference": "ch_8f2a41c1",
    "failure": {"code": "insufficient_funds", "message": "The PSP declined the payment."},
    "updated_at": "2026-11-21T10:00:00.045112Z",
}
REQUIRES_ACTION: Final[Json] = ACCEPTED | {
    "status": "requires_action",
    "version": 2,
    "psp_reference": "ch_8f2a41c2",
    "next_action": {"type": "redirect", "url": "https://psp.example/3ds/8f2a41c2"},
    "updated_at": "2026-11-21T10:00:00.045112Z",
}


# What the operations on a payment are sent.
CAPTURES: Final[dict[str, Json]] = {"all": {}, "a part": {"amount": 1500}}
CANCELS: Final[dict[str, Json]] = {"all": {}}
REFUNDS: Final[dict[str, Json]] = {"all that remains": {}, "a part": {"amount": 500, "reason": "One ticket"}}
IDEMPOTENCY_KEY: Final = "refund-1-of-order-10001"
OPERATION_ID: Final = "op_5f1c09d2b7a84c6e9a3d10f2"

REFUND: Final[Json] = {
    "id": OPERATION_ID,
    "type": "refund",
    "amount": 500,
    "status": "pending",
    "failure": None,
    "created_at": "2026-11-21T11:30:00.000000Z",
}
REFUND_SUCCEEDED: Final[Json] = REFUND | {"status": "succeeded"}
REFUND_FAILED: Final[Json] = REFUND | {
    "status": "failed",
    "failure": {"code": "charge_disputed", "message": "The PSP refused the refund."},
}
CAPTURE: Final[Json] = REFUND | {"type": "capture", "amount": 1500}
CANCEL: Final[Json] = REFUND | {"type": "cancel", "amount": 1999}

# What PATCH is sent: the first on SUCCEEDED makes CHANGED.
CHANGES: Final[dict[str, Json]] = {
    "both": {"description": "Two tickets, row 7", "metadata": {"basket": "b-5512", "row": "7"}},
    "no description": {"description": None},
}
CHANGED: Final[Json] = SUCCEEDED | CHANGES["both"] | {"version": 3}
CURSOR: Final = "CIDQ6OPmmJgDEgtvcmRlci0xMDAwMQ"
PAGE: Final[Json] = {"data": [SUCCEEDED], "next_cursor": CURSOR}


# What is kept to be named in payments.
CUSTOMER_ID: Final = "cus_2b7d0c91e45f4a8896c1d3aa"
METHOD_ID: Final = "pmt_9a10e7c3b2d54f6f8d01c2bb"
CUSTOMERS: Final[dict[str, Json]] = {
    "smallest": {},
    "everything": {
        "name": "Ada Lovelace",
        "email": "ada@shop.example",
        "description": "Since 1843",
        "metadata": {"crm": "c-4711"},
    },
}
CUSTOMER: Final[Json] = {
    "id": CUSTOMER_ID,
    **CUSTOMERS["everything"],
    "created_at": "2026-11-21T09:00:00.000000Z",
}
METHODS: Final[dict[str, Json]] = {
    "smallest": {"token": "pm_ok"},
    "everything": {
        "token": "pm_ok",
        "customer_id": "customer-77",
        "description": "The blue one",
        "metadata": {"slot": "1"},
    },
}
METHOD: Final[Json] = {
    "id": METHOD_ID,
    **METHODS["everything"],
    "created_at": "2026-11-21T09:01:00.000000Z",
}
VAULT_CURSOR: Final = "CICImq_ZmJgDEhxwbXRfOWExMGU3YzNiMmQ1NGY2ZjhkMDFjMmJi"


def for_browser(payment: Json, hidden: tuple[str, ...]) -> Json:
    return {name: value for name, value in payment.items() if name not in hidden}


# What is said beside the code, as a shard says it in the situation that a reader is likely to meet.
DETAILS: Final = {
    "unknown_customer": "The merchant has no customer of this id.",
    "invalid_request": "Correct every field that is listed.",
    "missing_checkout_id": "Send X-PAYMENT-CHECKOUT-ID, your own id for this checkout.",
    "missing_idempotency_key": "Send Idempotency-Key, your own key for this operation.",
    "precondition_required": "Send If-Match with the ETag of the payment as you read it.",
    "version_mismatch": "The payment is at version 2, not 1. Read it again.",
    "not_yet_processed": "The payment has not reached the processor yet. Try again in a moment.",
    "invalid_transition": "The payment is succeeded; a capture is possible while it is authorized.",
    "amount_too_large": "1499 remain of 1999 captured: 0 refunded, 500 in refunds under way.",
    "unauthorized": "Send `Authorization: Bearer` with one secret key that is valid now.",
    "not_found": "This merchant has no payment with this id here.",
    "unsupported_media_type": "Send `Content-Type: application/json`.",
    "payload_too_large": "A body has at most 65536 bytes.",
    "idempotency_key_reused": "This checkout id was accepted with other content. Use a new id for a new "
    "checkout.",
}
ERRORS: Final = {
    "invalid_request": [
        {"field": "amount", "message": "must be an integer number of minor units, 1 to 99999999999"},
        {"field": "currency", "message": "is required and must be an ISO 4217 alphabetic code in upper case"},
    ],
}
