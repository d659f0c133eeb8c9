"""Answers as OpenAPI describes them: with their headers, and problems by their codes.

A problem is a component of its own for each set of codes, so that an operation names exactly what it answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any, Final

from gateway.http.problems import KINDS, PROBLEM_JSON
from gateway.openapi.examples import DETAILS, ERRORS
from gateway.openapi.schemas import STATUS_OF, Schema, reference

Answers = dict[str, Any]

# What nginx or the shard's server says of a request before any operation has seen it.
ANYWHERE: Final = (
    "invalid_request",
    "request_timeout",
    "length_required",
    "payload_too_large",
    "uri_too_long",
    "headers_too_large",
    "rate_limited",
    "internal",
    "overloaded",
    "owner_unavailable",
    "owner_timeout",
)
NO_STORE: Final = {"Cache-Control": {"required": True, "schema": {"const": "no-store"}}}
COME_AGAIN: Final = {
    "Retry-After": {
        "description": "Seconds until asking again is worth it.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    }
}
_HEADERS_OF_STATUS: Final[dict[int, dict[str, Schema]]] = {
    401: {"WWW-Authenticate": {"required": True, "schema": {"enum": ["Bearer", "Signature"]}}},
    409: {
        "Retry-After": COME_AGAIN["Retry-After"] | {"required": False, "description": "Where time mends it."}
    },
    429: COME_AGAIN,
    503: COME_AGAIN,
    504: COME_AGAIN,
}


def header(schema: Schema, description: str = "", *, required: bool = True) -> Schema:
    return {"description": description, "required": required, "schema": schema}


def json_answer(description: str, schema: Schema, headers: Answers, examples: dict[str, Any]) -> Answers:
    return {
        "description": description,
        "headers": headers,
        "content": {"application/json": {"schema": schema, "examples": _named(examples)}},
    }


class Problems:
    """Gathers the components that the operations' problems refer to."""

    def __init__(self) -> None:
        self.components: dict[str, Answers] = {}

    def answers(self, *codes: str) -> Answers:
        """Status → reference for these codes and those that may be met anywhere."""
        ordered = sorted({*codes, *ANYWHERE}, key=lambda code: (STATUS_OF[code], code))
        return {
            str(status): self._reference(status, list(alike))
            for status, alike in groupby(ordered, STATUS_OF.__getitem__)
        }

    def _reference(self, status: int, codes: list[str]) -> Answers:
        name = "Or".join("".join(map(str.capitalize, code.split("_"))) for code in codes)
        self.components[name] = _problem_answer(status, codes)
        return {"$ref": f"#/components/responses/{name}"}


def problem_example(code: str) -> dict[str, Any]:
    """As a shard answers it."""
    return {
        "type": f"urn:tollgate:problem:{code}",
        "title": KINDS[code].title,
        "status": KINDS[code].status,
        "detail": DETAILS[code],
        "code": code,
        "errors": ERRORS.get(code, []),
    }


def _problem_answer(status: int, codes: list[str]) -> Answers:
    narrowed = {"properties": {"status": {"const": status}, "code": {"enum": codes}}}
    media: Answers = {"schema": {"allOf": [reference("Problem"), narrowed]}}
    examples = {code: problem_example(code) for code in codes if code in DETAILS}
    if examples:
        media["examples"] = _named(examples)
    return {
        "description": " or ".join(f"`{code}`" for code in codes),
        "headers": NO_STORE | _HEADERS_OF_STATUS.get(status, {}),
        "content": {PROBLEM_JSON: media},
    }


def _named(examples: dict[str, Any]) -> dict[str, Any]:
    return {name: {"value": value} for name, value in examples.items()}


def codes_of(answers: Iterable[Answers]) -> set[str]:
    """Every problem code that these components speak of."""
    return {
        code
        for answer in answers
        for code in answer["content"][PROBLEM_JSON]["schema"]["allOf"][1]["properties"]["code"]["enum"]
    }
