"""/v1/payments and /v1/payments/{id}, as they are answered today."""

from __future__ import annotations

from typing import Any, Final

from gateway.admission import CHECKOUT_ID_HEADER
from gateway.list_requests import CURSOR_PATTERN, LIMIT_DEFAULT, LIMIT_MAX
from gateway.openapi import examples
from gateway.openapi.answers import COME_AGAIN, NO_STORE, Answers, Problems, header, json_answer
from gateway.openapi.schemas import HIDDEN_FROM_BROWSERS, Schema, reference
from gateway.operation_requests import IF_MATCH_HEADER
from tollgate.status import NAME

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
PAYMENT_PATH: Final = "/v1/payments/{payment_checkout_id}"
PATH_ID: Final = {
    "name": "payment_checkout_id",
    "in": "path",
    "required": True,
    "description": "The id under which the payment was made.",
    "schema": reference("CheckoutId"),
    "example": examples.CHECKOUT_ID,
}
_TIME: Final = {
    "format": "date-time",
    "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)$",
}
_TRACEPARENT: Final = {
    "name": "traceparent",
    "in": "header",
    "description": "W3C trace context. One that can't be read is replaced, never refused.",
    "schema": {"type": "string"},
}


def payment_paths(problems: Problems) -> dict[str, Operations]:
    return {
        "/v1/payments": {"post": _create(problems), "get": _list(problems)},
        PAYMENT_PATH: {
            "parameters": [PATH_ID],
            "get": _read(problems),
            "patch": _change(problems),
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


def _change(problems: Problems) -> Operations:
    return {
        "operationId": "changePayment",
        "tags": ["payments"],
        "summary": "Change what is said of a payment",
        "description": "Its description and its metadata; nothing that money depends on. `If-Match` names "
        "the version that was read, so that nobody overwrites what he has not seen.",
        "security": [{"secretKey": []}],
        "parameters": [
            {
                "name": IF_MATCH_HEADER,
                "in": "header",
                "required": True,
                "description": "The ETag of the payment as it was read: exactly one, and no weak one.",
                "schema": {"type": "string", "pattern": '^"(0|[1-9][0-9]{0,17})"$'},
                "example": '"2"',
            }
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": reference("PaymentChange"),
                    "examples": {name: {"value": body} for name, body in examples.CHANGES.items()},
                }
            },
        },
        "responses": {
            "200": json_answer(
                "The payment with the change.",
                reference("Payment"),
                NO_STORE | _ETAG | _MAY_COME_AGAIN,
                {"changed": examples.CHANGED},
            ),
            **problems.answers(
                "unauthorized",
                "not_found",
                "unsupported_media_type",
                "not_yet_processed",
                "version_mismatch",
                "precondition_required",
                "not_ready",
                "ledger_unavailable",
            ),
        },
    }


def _list(problems: Problems) -> Operations:
    return {
        "operationId": "listPayments",
        "tags": ["payments"],
        "summary": "The merchant's payments, newest first",
        "description": "Of all shards, as they stand in the Ledger: a payment is there a moment after its "
        "202. `cursor` is the `next_cursor` of the page before, with the same filters; payments that come "
        "meanwhile move nobody's pages.",
        "security": [{"secretKey": []}],
        "parameters": [
            _filter("status", {"enum": list(NAME.values())}, "Where they stand.", "succeeded"),
            _filter("customer_id", {"minLength": 1, "maxLength": 64}, "Whose they are.", "customer-77"),
            _filter("created_gte", _TIME, "Accepted then or later.", "2026-11-21T00:00:00Z"),
            _filter("created_lt", _TIME, "Accepted before.", "2026-11-22T00:00:00Z"),
            {
                "name": "limit",
                "in": "query",
                "description": f"How many at most; {LIMIT_DEFAULT} when it is not there.",
                "schema": {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX},
                "example": LIMIT_DEFAULT,
            },
            _filter("cursor", {"pattern": CURSOR_PATTERN}, "Opaque.", examples.CURSOR),
        ],
        "responses": {
            "200": json_answer("A page.", reference("PaymentList"), NO_STORE, {"a page": examples.PAGE}),
            **problems.answers("unauthorized", "not_ready", "ledger_unavailable"),
        },
    }


def _filter(name: str, rule: Schema, description: str, example: str) -> Schema:
    return {
        "name": name,
        "in": "query",
        "description": description,
        "schema": {"type": "string"} | rule,
        "example": example,
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
        "parameters": [PATH_ID | {"schema": {"type": "string"}}],
        "responses": {
            "204": {"description": "GET and HEAD, from any origin.", "headers": allowed | _CORS},
            **problems.answers(),
        },
    }
