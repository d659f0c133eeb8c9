"""The shapes of what is sent and answered, in JSON Schema 2020-12.

The payment request is written out here a second time beside `gateway.admission`: a schema is for readers and
generators, a parser is for speed. A test draws bodies from both and holds their verdicts together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from gateway.http.problems import KINDS
from gateway.list_requests import CURSOR_PATTERN, LIMIT_MAX
from gateway.operation_requests import IDEMPOTENCY_KEY_PATTERN
from tollgate.ids import CHECKOUT_ID
from tollgate.money import AMOUNT_MAX, EXPONENT
from tollgate.status import NAME

Schema = dict[str, Any]

CHECKOUT_ID_PATTERN: Final = f"^{CHECKOUT_ID.pattern}$"
_NO_NUL: Final = r"^[^\x00]*$"
_FOR_CARD_DATA: Final = "^([cC][vV][vVcC]|[pP][aA][nN])$"
# What nginx in front of the shards answers besides (tollgate/nginx_config.py).
PROXY_CODES: Final = {
    "length_required": 411,
    "uri_too_long": 414,
    "owner_timeout": 504,
}
STATUS_OF: Final = {code: kind.status for code, kind in KINDS.items()} | PROXY_CODES
HIDDEN_FROM_BROWSERS: Final = ("metadata", "customer_id")


def schemas(psp_names: Iterable[str]) -> dict[str, Schema]:
    """Everything under `components.schemas`. `psp_names` are those that this shard knows."""
    payment = _payment()
    for_client = {name: rule for name, rule in payment.items() if name not in HIDDEN_FROM_BROWSERS}
    return {
        "CheckoutId": {
            "type": "string",
            "pattern": CHECKOUT_ID_PATTERN,
            "description": "The client's own id for one checkout, and its idempotency key.",
        },
        "Currency": {
            "type": "string",
            "enum": sorted(EXPONENT),
            "description": "ISO 4217 alphabetic code, upper case; only currencies with a minor unit.",
        },
        "PaymentRequest": _payment_request(sorted(psp_names)),
        "Payment": closed(payment, "A payment, as the merchant's secret key sees it."),
        "PaymentForBrowser": closed(
            for_client, "A payment, as its client_secret opens it: without metadata and customer_id."
        ),
        "CaptureRequest": _asked("Of all that is authorized when there is no amount.", _wanted_amount()),
        "CancelRequest": _asked("Nothing is to be said about it.", {}),
        "RefundRequest": _asked(
            "Of all that remains when there is no amount.",
            _wanted_amount() | {"reason": optional_text(500, "Why, in the merchant's words.")},
        ),
        "PaymentChange": _asked(
            "At least one of both. What is not there stays as it is, null takes it away.",
            {
                "description": optional_text(500, "What is paid for."),
                "metadata": metadata("Replaced whole. No key may be cvv, cvc or pan."),
            },
        )
        | {"minProperties": 1},
        "PaymentList": closed(
            {
                "data": {"type": "array", "maxItems": LIMIT_MAX, "items": reference("Payment")},
                "next_cursor": {
                    "type": ["string", "null"],
                    "pattern": CURSOR_PATTERN,
                    "description": "Where the next page begins; null: this was the last.",
                },
            },
            "A page of payments, newest first.",
        ),
        "IdempotencyKey": {
            "type": "string",
            "pattern": IDEMPOTENCY_KEY_PATTERN,
            "description": "1 to 255 visible ASCII characters, as they are or in double quotes.",
        },
        "Operation": closed(_operation(), "Something done to a payment after it was accepted."),
        "Failure": closed(
            {"code": {"type": "string"}, "message": {"type": "string"}}, "Why it failed, in a stable code."
        ),
        "Problem": _problem(),
    }


def reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _payment_request(psp_names: list[str]) -> Schema:
    """An explicit null is the same as an absent field."""
    optional: dict[str, Schema] = {
        "capture": {
            "type": ["string", "null"],
            "enum": ["automatic", "manual", None],
            "description": 'When the money is taken; "automatic" when absent. "manual" authorizes only.',
        },
        "psp": {
            "type": ["string", "null"],
            "enum": [*psp_names, None],
            "description": "Who executes it. The merchant's default when absent, frozen at acceptance.",
        },
        "customer_id": optional_text(
            64,
            "The merchant's own id of the customer, or one kept here (`cus_…`; one that is not there fails "
            "the payment with `unknown_customer`).",
        ),
        "description": optional_text(500, "What is paid for."),
        "return_url": optional_text(2048, "Where the customer comes back to after an authentication."),
        "metadata": metadata("Up to 20 pairs of the merchant's own. No key may be cvv, cvc or pan."),
        "payment_checkout_id": {
            "type": ["string", "null"],
            "pattern": CHECKOUT_ID_PATTERN,
            "description": "Must equal the header when it is there.",
        },
    }
    return {
        "type": "object",
        "description": "At most 64 KiB of UTF-8. Unknown fields, keys that come twice and NUL are "
        "refused; so are card numbers, wherever they stand. Lengths are in characters.",
        "required": ["amount", "currency", "payment_method"],
        "additionalProperties": False,
        "properties": {
            "amount": {
                "type": "integer",
                "minimum": 1,
                "maximum": AMOUNT_MAX,
                "description": "In minor units (cents). Written as an integer: 12.0 is refused.",
            },
            "currency": reference("Currency"),
            "payment_method": text(
                255,
                "The PSP's token, or a payment method kept here (`pmt_…`; one that is not there fails the "
                "payment with `unknown_payment_method`). Never a card number.",
            ),
            **optional,
        },
    }


def metadata(description: str) -> Schema:
    return {
        "type": ["object", "null"],
        "maxProperties": 20,
        "propertyNames": {
            "maxLength": 40,
            "pattern": _NO_NUL,
            "not": {"pattern": _FOR_CARD_DATA},
        },
        "additionalProperties": {"type": "string", "maxLength": 500, "pattern": _NO_NUL},
        "description": description,
    }


def _wanted_amount() -> dict[str, Schema]:
    return {"amount": _amount(1, "In minor units, written as an integer.") | {"type": ["integer", "null"]}}


def _asked(description: str, properties: dict[str, Schema]) -> Schema:
    """What is sent about a payment that stands: every field may be left out."""
    return {
        "type": "object",
        "description": f"{description} Unknown fields, double keys, NUL and card numbers are refused.",
        "required": [],
        "additionalProperties": False,
        "properties": properties,
    }


def text(length_max: int, description: str) -> Schema:
    return {
        "type": "string",
        "minLength": 1,
        "maxLength": length_max,
        "pattern": _NO_NUL,
        "description": description,
    }


def optional_text(length_max: int, description: str) -> Schema:
    return {
        "type": ["string", "null"],
        "maxLength": length_max,
        "pattern": _NO_NUL,
        "description": description,
    }


def _payment() -> dict[str, Schema]:
    return {
        "payment_checkout_id": reference("CheckoutId"),
        "status": {"enum": list(NAME.values()), "description": "Where the payment stands."},
        "amount": _amount(1, "In minor units."),
        "currency": reference("Currency"),
        "captured_amount": _amount(0, "What was taken so far."),
        "refunded_amount": _amount(0, "What was given back so far."),
        "capture": {"enum": ["automatic", "manual"]},
        "version": {
            "type": "integer",
            "minimum": 0,
            "description": "Rises with every change; 0 is the acceptance. Also the ETag.",
        },
        "psp": {"type": "string", "description": "Who executes it."},
        "psp_reference": {"type": ["string", "null"], "description": "The PSP's own id of it."},
        "risk_score": {"type": ["integer", "null"], "description": "What risk assessment came to."},
        "failure": {"anyOf": [reference("Failure"), {"type": "null"}]},
        "next_action": {
            "anyOf": [
                closed(
                    {"type": {"const": "redirect"}, "url": {"type": "string"}}, "Send the customer there."
                ),
                {"type": "null"},
            ]
        },
        "customer_id": {"type": ["string", "null"], "maxLength": 64},
        "description": {"type": ["string", "null"], "maxLength": 500},
        "metadata": {
            "type": "object",
            "maxProperties": 20,
            "additionalProperties": {"type": "string", "maxLength": 500},
        },
        "operations": {
            "type": "array",
            "maxItems": 10,
            "items": reference("Operation"),
            "description": "The last ten.",
        },
        "created_at": time(),
        "updated_at": time(),
        "client_secret": {
            "type": "string",
            "pattern": "^[A-Za-z0-9_-]+$",
            "description": "Lets a browser read this one payment.",
        },
    }


def _operation() -> dict[str, Schema]:
    return {
        "id": {"type": "string", "pattern": "^[A-Za-z0-9_]{1,64}$"},
        "type": {"enum": ["capture", "cancel", "refund"]},
        "amount": _amount(0, "In minor units."),
        "status": {"enum": ["pending", "succeeded", "failed"]},
        "failure": {"anyOf": [reference("Failure"), {"type": "null"}]},
        "created_at": time(),
    }


def _problem() -> Schema:
    error = closed({"field": {"type": "string"}, "message": {"type": "string"}}, "One wrong field.")
    fields: dict[str, Schema] = {
        "type": {"type": "string", "pattern": "^urn:tollgate:problem:[a-z_]+$"},
        "title": {
            "type": "string",
            "description": "The kind of problem, the same for every one of its code.",
        },
        "status": {"enum": sorted(set(STATUS_OF.values())), "description": "The HTTP status, repeated."},
        "detail": {"type": "string", "description": "What happened this time and what to do next."},
        "code": {"enum": sorted(STATUS_OF), "description": "Stable: decide by this."},
        "errors": {"type": "array", "items": error, "description": "Every wrong field; mostly empty."},
    }
    return closed(fields, "RFC 9457. Nothing of a refused value is repeated.")


def _amount(minimum: int, description: str) -> Schema:
    return {"type": "integer", "minimum": minimum, "maximum": AMOUNT_MAX, "description": description}


def time() -> Schema:
    return {
        "type": "string",
        "format": "date-time",
        "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$",
        "description": "RFC 3339, UTC, microseconds.",
    }


def closed(properties: dict[str, Schema], description: str) -> Schema:
    """An object with exactly these properties."""
    return {
        "type": "object",
        "description": description,
        "required": list(properties),
        "additionalProperties": False,
        "properties": properties,
    }
