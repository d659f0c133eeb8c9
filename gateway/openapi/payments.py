"""POST /v1/payments and GET /v1/payments/{id}, as they are answered today."""

from __future__ import annotations

from typing import Any, Final

from gateway.admission import CHECKOUT_ID_HEADER
from gateway.openapi import examples
from gateway.openapi.answers import COME_AGAIN, NO_STORE, Answers, Problems, header, json_answer
from gateway.openapi.schemas import HIDDEN_FROM_BROWSERS, Schema, reference

Operations = dict[str, Any]

_ETAG: Final = {"ETag": header({"type": "string", "pattern": '^"[0-9]+"$'}, "The version, in quotes.")}
_MAY_COME_AGAIN: Final = {
    "Retry-After": header(
        {"const": "2"},
        "There while the payment is pending, processing or requires_action.",
        required=False,
    )
}
_CORS: Final = {
    "Access-Control-Allow-Origin": header({"const": "*"}),
    "Access-Control-Expose-Headers": header({"const": "ETag, Retry-After"}),
}
_PATH_ID: Final = {
    "name": "payment_checkout_id",
    "in": "path",
    "required": True,
    "description": "The id under which the payment was made.",
    "schema": reference("CheckoutId"),
    "example": examples.CHECKOUT_ID,
}
_TRACEPARENT: Final = {
    "name": "traceparent",
    "in": "header",
    "description": "W3C trace context. One that can't be read is replaced, never refused.",
    "schema": {"type": "string"},
}


def payment_paths(problems: Problems) -> dict[str, Operations]:
    return {
        "/v1/payments": {"post": _create(problems)},
        "/v1/payments/{payment_checkout_id}": {
            "parameters": [_PATH_ID],
            "get": _read(problems),
            "options": _preflight(problems),
        },
    }


def _create(problems: Problems) -> Operations:
    return {
        "operationId": "createPayment",
        "tags": ["payments"],
        "summary": "Accept a payment",
        "description": "Durable when it is answered 202, executed afterwards, exactly once.\n\n"
        f"`{CHECKOUT_ID_HEADER}` is the idempotency key: the same id with the same content is answered 200 "
        "with the payment as it is now; with other content 422. Any 5xx, or no answer at all, means: send "
        "the same again under the same id.",
        "security": [{"secretKey": []}],
        "parameters": [
            {
                "name": CHECKOUT_ID_HEADER,
                "in": "header",
                "required": True,
                "description": "Your own id for this checkout; exactly once. No card number.",
                "schema": reference("CheckoutId"),
                "example": examples.CHECKOUT_ID,
            },
            _TRACEPARENT,
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": reference("PaymentRequest"),
                    "examples": {name: {"value": body} for name, body in examples.REQUESTS.items()},
                }
            },
        },
        "responses": {
            "200": json_answer(
                "Known already: the same id and content came before. The payment as it is now.",
                reference("Payment"),
                NO_STORE | _ETAG | {"Idempotent-Replayed": header({"const": "true"})},
                {"succeeded meanwhile": examples.SUCCEEDED},
            ),
            "202": json_answer(
                "Accepted, and on disk.",
                _pending(),
                NO_STORE | COME_AGAIN | {"Location": header({"type": "string", "pattern": "^/v1/payments/"})},
                {"pending": examples.ACCEPTED},
            ),
            **problems.answers(
                "missing_checkout_id",
                "unauthorized",
                "unsupported_media_type",
                "idempotency_key_reused",
                "not_ready",
            ),
        },
    }


def _pending() -> Schema:
    first = {"properties": {"status": {"const": "pending"}, "version": {"const": 0}}}
    return {"allOf": [reference("Payment"), first]}


def _read(problems: Problems) -> Operations:
    told = {
        "succeeded": examples.SUCCEEDED,
        "failed": examples.FAILED,
        "requires_action": examples.REQUIRES_ACTION,
        "for a browser": examples.for_browser(examples.SUCCEEDED, HIDDEN_FROM_BROWSERS),
    }
    return {
        "operationId": "getPayment",
        "tags": ["payments"],
        "summary": "The payment as it is now",
        "description": "Asked with the secret key, or by a browser with `?client_secret=` of this payment: "
        "that view leaves out metadata and customer_id. The one route that answers other origins (CORS). "
        "With both the secret key decides. Another merchant's payment is 404.\n\n"
        f"`{CHECKOUT_ID_HEADER}` may be sent too and must then equal the id in the path. There is no other "
        "query parameter.",
        "security": [{"secretKey": []}, {"clientSecret": []}],
        "parameters": [
            {
                "name": "If-None-Match",
                "in": "header",
                "description": "The last ETag: 304 while the payment is unchanged.",
                "schema": {"type": "string"},
                "example": '"2"',
            }
        ],
        "responses": {
            "200": json_answer(
                "The payment.",
                {"anyOf": [reference("Payment"), reference("PaymentForBrowser")]},
                NO_STORE | _ETAG | _MAY_COME_AGAIN | _CORS,
                told,
            ),
            "304": {
                "description": "Unchanged since the version in `If-None-Match`.",
                "headers": NO_STORE | _ETAG | _MAY_COME_AGAIN | _CORS,
            },
            **problems.answers("unauthorized", "not_found", "not_ready"),
        },
    }


def _preflight(problems: Problems) -> Operations:
    allowed: Answers = {
        "Access-Control-Allow-Methods": header({"const": "GET, HEAD"}),
        "Access-Control-Allow-Headers": header({"type": "string"}),
        "Access-Control-Max-Age": header({"const": "86400"}),
    }
    return {
        "operationId": "preflightPayment",
        "tags": ["payments"],
        "summary": "What a browser may ask",
        "description": "CORS preflight; asks for no credentials and looks at none.",
        "security": [],
        "parameters": [_PATH_ID | {"schema": {"type": "string"}}],
        "responses": {
            "204": {"description": "GET and HEAD, from any origin.", "headers": allowed | _CORS},
            **problems.answers(),
        },
    }
