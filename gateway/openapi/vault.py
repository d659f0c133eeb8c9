"""Customers and payment methods, as they are answered today."""

from __future__ import annotations

from typing import Any, Final

from gateway.list_requests import CURSOR_PATTERN, LIMIT_DEFAULT, LIMIT_MAX
from gateway.openapi import examples
from gateway.openapi.answers import NO_STORE, Answers, Problems, header, json_answer
from gateway.openapi.schemas import Schema, closed, metadata, optional_text, reference, text, time
from gateway.operation_requests import IDEMPOTENCY_KEY_HEADER
from gateway.vault_requests import (
    CUSTOMER_ID_LENGTH_MAX,
    DESCRIPTION_LENGTH_MAX,
    EMAIL_LENGTH_MAX,
    NAME_LENGTH_MAX,
    TOKEN_LENGTH_MAX,
)

Operations = dict[str, Any]

_TAG: Final = ["vault"]
_KEPT_METADATA: Final = "Up to 20 pairs of the merchant's own. No key may be cvv, cvc or pan."
_KEY: Final = {
    "name": IDEMPOTENCY_KEY_HEADER,
    "in": "header",
    "required": False,
    "description": "Optional. Without one each POST makes something new. Under one, whose scope is your "
    "account and this address, the same content makes one thing however often it is sent, and other "
    "content is 422. No card number.",
    "schema": reference("IdempotencyKey"),
}
_REPLAYED: Final = {"Idempotent-Replayed": header({"const": "true"})}
_CUSTOMER_FILTER: Final = {
    "name": "customer_id",
    "in": "query",
    "description": "Whose they are.",
    "schema": {"type": "string", "minLength": 1, "maxLength": CUSTOMER_ID_LENGTH_MAX},
    "example": examples.CUSTOMER_ID,
}


def vault_schemas() -> dict[str, Schema]:
    customer: dict[str, Schema] = {
        "id": _id("cus", "A payment's customer_id may name it."),
        "name": {"type": ["string", "null"], "maxLength": NAME_LENGTH_MAX},
        "email": {"type": ["string", "null"], "maxLength": EMAIL_LENGTH_MAX},
        **_said(),
    }
    method: dict[str, Schema] = {
        "id": _id("pmt", "A payment's payment_method may name it."),
        "token": {"type": "string", "minLength": 1, "maxLength": TOKEN_LENGTH_MAX},
        "customer_id": {"type": ["string", "null"], "maxLength": CUSTOMER_ID_LENGTH_MAX},
        **_said(),
    }
    return {
        "CustomerRequest": _asked(
            [],
            {
                "name": optional_text(NAME_LENGTH_MAX, "As it is written."),
                "email": optional_text(EMAIL_LENGTH_MAX, "As it is written; nothing is sent there."),
            },
        ),
        "PaymentMethodRequest": _asked(
            ["token"],
            {
                "token": text(TOKEN_LENGTH_MAX, "The PSP's token. Never a card number."),
                "customer_id": optional_text(
                    CUSTOMER_ID_LENGTH_MAX,
                    "Whose it is: a `cus_…` that is kept here, or your own name for a customer. Payments of "
                    "another customer can't use it.",
                )
                | {"minLength": 1},
            },
        ),
        "Customer": closed(customer, "A customer, as it was made."),
        "PaymentMethod": closed(method, "A payment method, as it was made. Tokens only."),
        "CustomerList": _list_of("Customer"),
        "PaymentMethodList": _list_of("PaymentMethod"),
    }


def vault_paths(problems: Problems) -> dict[str, Operations]:
    return {
        "/v1/customers": {
            "post": _create(
                problems,
                "createCustomer",
                "Keep a customer",
                "What is kept stays as it is.",
                ("Customer", examples.CUSTOMERS, examples.CUSTOMER),
            ),
            "get": _list(
                problems, "listCustomers", "The merchant's customers, newest first", "CustomerList", []
            ),
        },
        "/v1/customers/{customer_id}": {
            "parameters": [_path("customer_id", "cus", examples.CUSTOMER_ID)],
            "get": _read(problems, "getCustomer", "A customer", "Customer", examples.CUSTOMER),
        },
        "/v1/payment_methods": {
            "post": _create(
                problems,
                "createPaymentMethod",
                "Keep a payment method",
                "A PSP's token under a name that payments can use. A customer_id that begins with `cus_` "
                "must be kept here (422 `unknown_customer`).",
                ("PaymentMethod", examples.METHODS, examples.METHOD),
                "unknown_customer",
            ),
            "get": _list(
                problems,
                "listPaymentMethods",
                "The merchant's payment methods, newest first",
                "PaymentMethodList",
                [_CUSTOMER_FILTER],
            ),
        },
        "/v1/payment_methods/{payment_method_id}": {
            "parameters": [_path("payment_method_id", "pmt", examples.METHOD_ID)],
            "get": _read(problems, "getPaymentMethod", "A payment method", "PaymentMethod", examples.METHOD),
            "delete": _delete(problems),
        },
    }


def _create(
    problems: Problems,
    name: str,
    summary: str,
    description: str,
    shown: tuple[str, dict[str, Any], dict[str, Any]],
    *codes: str,
) -> Operations:
    kind, sent, made = shown
    location = header({"type": "string", "pattern": "^/v1/(customers|payment_methods)/"})
    return {
        "operationId": name,
        "tags": _TAG,
        "summary": summary,
        "description": f"Durable when it is answered. {description}",
        "security": [{"secretKey": []}],
        "parameters": [_KEY],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": reference(f"{kind}Request"),
                    "examples": {key: {"value": value} for key, value in sent.items()},
                }
            },
        },
        "responses": {
            "200": json_answer(
                "Known already: the same key and content came before.",
                reference(kind),
                NO_STORE | _REPLAYED,
                {"made before": made},
            ),
            "201": json_answer("Made.", reference(kind), NO_STORE | {"Location": location}, {"made": made}),
            **problems.answers(
                "unauthorized",
                "unsupported_media_type",
                "idempotency_key_reused",
                "not_ready",
                "ledger_unavailable",
                *codes,
            ),
        },
    }


def _read(problems: Problems, name: str, summary: str, kind: str, shown: dict[str, Any]) -> Operations:
    return {
        "operationId": name,
        "tags": _TAG,
        "summary": summary,
        "description": "",
        "security": [{"secretKey": []}],
        "parameters": [],
        "responses": {
            "200": json_answer("As it was made.", reference(kind), NO_STORE, {"made": shown}),
            **problems.answers("unauthorized", "not_found", "not_ready", "ledger_unavailable"),
        },
    }


def _list(
    problems: Problems, name: str, summary: str, kind: str, filters: list[dict[str, Any]]
) -> Operations:
    return {
        "operationId": name,
        "tags": _TAG,
        "summary": summary,
        "description": "`cursor` is the `next_cursor` of the page before, with the same filter.",
        "security": [{"secretKey": []}],
        "parameters": [
            *filters,
            {
                "name": "limit",
                "in": "query",
                "description": f"How many at most; {LIMIT_DEFAULT} when it is not there.",
                "schema": {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX},
                "example": LIMIT_DEFAULT,
            },
            {
                "name": "cursor",
                "in": "query",
                "description": "Opaque.",
                "schema": {"type": "string", "pattern": CURSOR_PATTERN},
                "example": examples.VAULT_CURSOR,
            },
        ],
        "responses": {
            "200": json_answer("A page.", reference(kind), NO_STORE, {}),
            **problems.answers("unauthorized", "not_ready", "ledger_unavailable"),
        },
    }


def _delete(problems: Problems) -> Operations:
    return {
        "operationId": "deletePaymentMethod",
        "tags": _TAG,
        "summary": "Forget a payment method",
        "description": "No payment begins with it any more: one that names it fails with "
        "`unknown_payment_method`. What has begun goes on. Deleting it again is 204 too.",
        "security": [{"secretKey": []}],
        "parameters": [],
        "responses": {
            "204": {"description": "It is gone.", "headers": NO_STORE},
            **problems.answers("unauthorized", "not_found", "not_ready", "ledger_unavailable"),
        },
    }


def _path(name: str, prefix: str, example: str) -> Answers:
    return {"name": name, "in": "path", "required": True, "schema": _id(prefix, ""), "example": example}


def _id(prefix: str, description: str) -> Schema:
    return {"type": "string", "pattern": f"^{prefix}_[0-9a-f]{{24}}$", "description": description}


def _said() -> dict[str, Schema]:
    return {
        "description": {"type": ["string", "null"], "maxLength": DESCRIPTION_LENGTH_MAX},
        "metadata": {
            "type": "object",
            "maxProperties": 20,
            "additionalProperties": {"type": "string", "maxLength": 500},
        },
        "created_at": time(),
    }


def _asked(required: list[str], own: dict[str, Schema]) -> Schema:
    """An explicit null is the same as an absent field."""
    return {
        "type": "object",
        "description": "Unknown fields, double keys, NUL and card numbers are refused.",
        "required": required,
        "additionalProperties": False,
        "properties": {
            **own,
            "description": optional_text(DESCRIPTION_LENGTH_MAX, "For the merchant's own eyes."),
            "metadata": metadata(_KEPT_METADATA),
        },
    }


def _list_of(kind: str) -> Schema:
    return closed(
        {
            "data": {"type": "array", "maxItems": LIMIT_MAX, "items": reference(kind)},
            "next_cursor": {
                "type": ["string", "null"],
                "pattern": CURSOR_PATTERN,
                "description": "Where the next page begins; null: this was the last.",
            },
        },
        "A page, newest first.",
    )
