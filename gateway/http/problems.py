"""RFC 9457: every answer that is not a success, in one shape, with one table of its kinds."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Final, NamedTuple

import orjson

from gateway.errors import LedgerSilent, NotReady
from gateway.http.message import Response
from gateway.rate_limits import RateLimited
from gateway.strict_json import FieldProblem
from tollgate.errors import Overloaded

PROBLEM_JSON: Final = "application/problem+json"
_RETRY_AFTER_S: Final = "1"


LEDGER_SILENT: Final = (
    "The Ledger, which alone decides about this, does not answer now. Send the same again, with the same key."
)


class Kind(NamedTuple):
    status: int
    title: str


KINDS: Final = {
    "invalid_request": Kind(400, "The request is not valid"),
    "missing_checkout_id": Kind(400, "The checkout id is missing"),
    "missing_idempotency_key": Kind(400, "The idempotency key is missing"),
    "unauthorized": Kind(401, "The credentials are missing or not known"),
    "forbidden": Kind(403, "This is not allowed from here"),
    "not_found": Kind(404, "There is nothing here"),
    "method_not_allowed": Kind(405, "The method is not allowed here"),
    "request_timeout": Kind(408, "The body did not arrive in time"),
    "invalid_transition": Kind(409, "The payment's status does not allow it"),
    "not_yet_processed": Kind(409, "The payment has not been processed yet"),
    "version_mismatch": Kind(412, "The payment has changed since"),
    "precondition_required": Kind(428, "The version that was read is missing"),
    "headers_too_large": Kind(431, "The request line or its headers are too large"),
    "payload_too_large": Kind(413, "The body is too large"),
    "unsupported_media_type": Kind(415, "The body's type is not supported"),
    "amount_too_large": Kind(422, "The amount is more than there is"),
    "idempotency_key_reused": Kind(422, "The idempotency key was used with other content"),
    "unknown_customer": Kind(422, "The customer is not known"),
    "rate_limited": Kind(429, "Too many requests"),
    "internal": Kind(500, "The shard met a defect of its own"),
    "overloaded": Kind(503, "The shard has too much to do"),
    "not_ready": Kind(503, "The shard is not ready"),
    "ledger_unavailable": Kind(503, "What decides about payments is not available"),
    "owner_unavailable": Kind(503, "The owner of this id is not available"),
}


class Problem(Exception):
    """Raised by handlers, answered as a problem document. Neither part may repeat what the client sent."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        errors: Sequence[FieldProblem] = (),
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.errors = errors
        self.headers = headers

    def response(self) -> Response:
        kind = KINDS[self.code]
        document = {
            "type": f"urn:tollgate:problem:{self.code}",
            "title": kind.title,
            "status": kind.status,
            "detail": self.detail,
            "code": self.code,
            "errors": [error._asdict() for error in self.errors],
        }
        headers = [("content-type", PROBLEM_JSON), ("cache-control", "no-store"), *self.headers]
        if kind.status == 503:
            headers.append(("retry-after", _RETRY_AFTER_S))
        return Response(kind.status, headers, orjson.dumps(document))


def known_problem(error: Exception) -> Problem | None:
    """What a client is told of an error that is not a defect; None: it is one."""
    match error:
        case Problem():
            return error
        case RateLimited():
            return Problem("rate_limited", error.message, headers=[("retry-after", str(ceil(error.wait_s)))])
        case Overloaded():
            return Problem("overloaded", error.message)
        case NotReady():
            return Problem("not_ready", error.message)
        case LedgerSilent():
            return Problem("ledger_unavailable", LEDGER_SILENT)
    return None
