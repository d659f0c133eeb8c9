"""Puts the parts together: one document for everything that is answered, and nothing else.

Each GET is answered to HEAD too, without its body; those operations are derived here, not written twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any, Final

from gateway.openapi.answers import Problems
from gateway.openapi.operations import operation_paths
from gateway.openapi.payments import payment_paths
from gateway.openapi.schemas import schemas
from gateway.openapi.service import service_paths
from gateway.openapi.vault import vault_paths, vault_schemas
from gateway.openapi.webhooks import webhook_paths

Document = dict[str, Any]

INTERFACE_VERSION: Final = "1.0.0"
_DESCRIPTION: Final = (
    "Payments are accepted durably in about a millisecond, executed exactly once at a payment service "
    "provider, and polled at memory speed.\n\n"
    "JSON in UTF-8, bodies of at most 64 KiB, times in RFC 3339 UTC with microseconds, amounts in minor "
    "units. Every error is a problem document (RFC 9457) with a stable `code`. 503 carries `Retry-After`. "
    "Any 5xx, or no answer, means: send the same again with the same id.\n\n"
    "An address that is not here is 404 `not_found`; a method that is not here is 405 `method_not_allowed`, "
    "and `Allow` names those that are. HTTP that is not well-formed is answered 400 and the connection is "
    "closed."
)


def document(psp_names: Iterable[str]) -> Document:
    """`psp_names` are those that a payment may name here."""
    problems = Problems()
    paths = (
        payment_paths(problems)
        | operation_paths(problems)
        | vault_paths(problems)
        | webhook_paths(problems)
        | service_paths(problems)
    )
    for path in paths.values():
        if "get" in path:
            path["head"] = _head(path["get"])
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {"title": "Tollgate", "version": INTERFACE_VERSION, "description": _DESCRIPTION},
        "servers": [{"url": "/", "description": "Where this document came from."}],
        "tags": [
            {"name": "payments", "description": "Taking payments and asking after them."},
            {"name": "operations", "description": "What is done to a payment after it was accepted."},
            {"name": "vault", "description": "Customers and payment methods that payments may name."},
            {"name": "webhooks", "description": "What payment service providers tell."},
            {"name": "service", "description": "Whether it is well, what it counts, and this document."},
        ],
        "paths": paths,
        "components": {
            "schemas": schemas(psp_names) | vault_schemas(),
            "responses": dict(sorted(problems.components.items())),
            "securitySchemes": {
                "secretKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A merchant's secret key. Never in a browser.",
                },
                "clientSecret": {
                    "type": "apiKey",
                    "in": "query",
                    "name": "client_secret",
                    "description": "The client_secret of this payment: opens it to a browser, for reading.",
                },
            },
        },
    }


def _head(get: dict[str, Any]) -> dict[str, Any]:
    """The same statuses and headers; a HEAD has no body, a problem's included."""
    head = deepcopy(get)
    name = get["operationId"]
    head["operationId"] = f"head{name[0].upper()}{name[1:]}"
    head["summary"] = f"{get['summary']}: its headers alone"
    for answer in head["responses"].values():
        answer.pop("content", None)
    return head
