"""POST /v1/payments and GET /v1/payments/{id}: the two hot routes.

The order of checks is the same for every request: may the shard answer at all, who asks and how often, is it
a request of this kind (header, type, size), and only then what the body says. Whoever is not known learns
nothing about the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson

from gateway.admission import CHECKOUT_ID_HEADER, PaymentRequest, admit
from gateway.card_numbers import holds_card_number
from gateway.committer import Committer
from gateway.elsewhere import Elsewhere
from gateway.errors import NoRoom
from gateway.health import Health
from gateway.http.message import Asking, Handler, Headers, Pending, Request, Response
from gateway.http.problems import Problem
from gateway.http.routes import Route, payment_id
from gateway.merchants import Account, Merchants
from gateway.planner import Accept, Acceptance, Conflict, Replay, Result
from gateway.rate_limits import KeyLimits
from gateway.replication import Replication
from gateway.strict_json import FieldProblem, Rejected
from gateway.verdict import Absence
from gateway.wire import accepted_payment
from tollgate.client_secrets import ClientSecrets
from tollgate.clock import Clock
from tollgate.errors import TollgateError
from tollgate.ids import CHECKOUT_ID, payment_key
from tollgate.payment_json import accepted_document, payment_document
from tollgate.status import OPEN
from tollgate.telemetry import traceparent_or_new
from tollgate.v1.payment_pb2 import Payment

BODY_BYTES_MAX: Final = 64 * 1024
JSON: Final = ("content-type", "application/json")
NO_STORE: Final = ("cache-control", "no-store")
COME_AGAIN: Final = ("retry-after", "2")
_AUTHENTICATE: Final = (("www-authenticate", "Bearer"),)
_CHECKOUT_ID: Final = CHECKOUT_ID_HEADER.lower()
_PLAIN_JSON: Final = ["application/json"]
_MEDIA_TYPE: Final = re.compile(r'application/json\s*(;\s*charset\s*=\s*"?utf-8"?\s*)?', re.IGNORECASE)
_BEARER: Final = re.compile(r"bearer +([^\s]+) *", re.IGNORECASE)
_ENTITY_TAG: Final = re.compile(r'(?:W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_NOT_FOR_BROWSERS: Final = ("metadata", "customer_id")
# A browser reads one payment with its client_secret, from any page; nothing else is open to it.
_CORS: Final = (
    ("access-control-allow-origin", "*"),
    ("access-control-expose-headers", "ETag, Retry-After"),
)
_PREFLIGHT: Final = [
    ("access-control-allow-methods", "GET, HEAD"),
    ("access-control-allow-headers", f"If-None-Match, traceparent, {CHECKOUT_ID_HEADER}"),
    ("access-control-max-age", "86400"),
]


@dataclass(frozen=True, slots=True)
class PaymentPolicy:
    psp_names: frozenset[str]
    expires_after_us: int
    client_secrets: ClientSecrets


class PaymentHandlers:
    def __init__(
        self,
        *,
        committer: Committer,
        elsewhere: Elsewhere,
        merchants: Merchants,
        health: Health,
        clock: Clock,
        policy: PaymentPolicy,
        replication: Replication | None = None,
        limits: KeyLimits | None = None,
        new_traceparent: Callable[[str | None], str] = traceparent_or_new,
    ) -> None:
        self._committer = committer
        self._elsewhere = elsewhere
        self._merchants = merchants
        self._health = health
        self._clock = clock
        self._policy = policy
        self._replication = replication
        self._limits = limits
        self._new_traceparent = new_traceparent

    def collection_route(self, list_them: Handler) -> Route:
        return Route("payments", {"POST": self.create, "GET": list_them})

    def payment_route(self, change: Handler) -> Route:
        return Route("payment", {"GET": self.read, "OPTIONS": self.preflight, "PATCH": change}, _CORS)

    def create(self, request: Request) -> Pending | Asking:
        self._health.check_writable()
        account = self.authenticate(request.headers)
        if self._limits is not None:
            self._limits.check_post(account.merchant)
        body = json_body(request)
        checkout_id = _checkout_id(request.headers)
        decision = admit(body, checkout_id, self._policy.psp_names)
        if isinstance(decision, Rejected):
            raise Problem("invalid_request", "Correct every field that is listed.", errors=decision.problems)
        traceparent = self._new_traceparent(_harmless(request.headers.get("traceparent")))
        now_us = self._clock.now_us()
        payment = accepted_payment(
            account.merchant,
            decision.request.psp or account.default_psp,
            checkout_id,
            decision,
            traceparent,
            now_us,
            now_us + self._policy.expires_after_us,
        )
        key = payment_key(account.merchant, checkout_id)
        entry = Acceptance(key, payment, decision.fingerprint, traceparent)
        if self._health.refusal is not None and self._committer.read(key) is None:
            raise NoRoom(self._health.refusal)  # what is stored is answered, and needs no write
        pending = Pending(entry, partial(self._created, account, checkout_id, decision.request, now_us))
        others = self._elsewhere.asked_before_accepting(checkout_id)
        if others is None:
            return pending
        if (stored := self._committer.read(key)) is None:
            return Asking(
                self._unless_known(pending, decision.fingerprint, account.merchant, checkout_id, others)
            )
        known = Payment.FromString(stored)
        return Asking(self._refreshed_first(pending, known)) if self._elsewhere.is_stale(known) else pending

    def read(self, request: Request) -> Response | Asking:
        self._health.check_readable()
        checkout_id = payment_id(request.path)
        merchant, by_client = self._reader(request, checkout_id)
        if self._limits is not None and not by_client:
            self._limits.check_get(merchant)
        check_id(request.headers, checkout_id)
        payment = self.stored(merchant, checkout_id)
        if payment is None:
            return Asking(self._read_elsewhere(request, merchant, checkout_id, by_client=by_client))
        if self._elsewhere.is_stale(payment):
            return Asking(self._read_refreshed(request, payment, by_client=by_client))
        return self._told(request, payment, by_client=by_client)

    async def _unless_known(
        self, pending: Pending, fingerprint: bytes, merchant: str, checkout_id: str, others: Sequence[str]
    ) -> Response | Pending:
        """The id moved here, or is another shard's: whoever may have it is asked first."""
        found = await self._elsewhere.before_accepting(merchant, checkout_id, others)
        if found is None:
            return pending
        raw = found.SerializeToString()
        return pending.finish(Replay(raw) if found.fingerprint == fingerprint else Conflict(raw))

    async def _refreshed_first(self, pending: Pending, known: Payment) -> Pending:
        """What a replay tells is on disk here then."""
        await self._elsewhere.refreshed(known)
        return pending

    async def _read_elsewhere(
        self, request: Request, merchant: str, checkout_id: str, *, by_client: bool
    ) -> Response:
        return self._told(request, await self.look_for(merchant, checkout_id), by_client=by_client)

    async def look_for(self, merchant: str, checkout_id: str) -> Payment:
        """A payment that is not here. Raises Problem when nobody has it, and when that can't be said."""
        said = await self._elsewhere.before_denying(merchant, checkout_id)
        if isinstance(said, Payment):
            return said
        payment = self.stored(merchant, checkout_id)  # it may have come meanwhile
        if payment is None and said is Absence.SILENT:
            raise Problem("owner_unavailable", "Not everyone who may have this payment answers. Ask again.")
        if payment is None:
            raise _not_found()
        return payment

    async def _read_refreshed(self, request: Request, payment: Payment, *, by_client: bool) -> Response:
        return self._told(request, await self._elsewhere.refreshed(payment), by_client=by_client)

    def stored(self, merchant: str, checkout_id: str) -> Payment | None:
        """The payment as it is on disk, if it may be told. Raises NotReady."""
        stored = self._committer.read(payment_key(merchant, checkout_id))
        if stored is None:
            return None
        payment = Payment.FromString(stored)
        if self._replication is not None:
            self._replication.check_proven(payment)
        return payment

    def _told(self, request: Request, payment: Payment, *, by_client: bool) -> Response:
        if _matches(request.headers.get_all("if-none-match"), payment.version):
            return Response(304, _headers_of(payment), b"")
        return self.answer(payment, for_client=by_client)

    def answer(self, payment: Payment, *, for_client: bool = False) -> Response:
        body = orjson.dumps(self.document(payment, for_client=for_client))
        return Response(200, [JSON, *_headers_of(payment)], body)

    def preflight(self, _request: Request) -> Response:
        return Response(204, list(_PREFLIGHT), b"")

    def _created(
        self, account: Account, checkout_id: str, request: PaymentRequest, now_us: int, result: Result
    ) -> Response:
        match result:
            case Accept():
                location = ("location", f"/v1/payments/{checkout_id}")
                document = accepted_document(
                    checkout_id,
                    request.amount,
                    request.currency,
                    request.capture or "automatic",
                    request.psp or account.default_psp,
                    request.customer_id,
                    request.description,
                    request.metadata or {},
                    now_us,
                )
                document["client_secret"] = self._policy.client_secrets.secret(account.merchant, checkout_id)
                return Response(202, [JSON, NO_STORE, location, COME_AGAIN], orjson.dumps(document))
            case Replay(stored):
                known = Payment.FromString(stored)
                headers = [JSON, NO_STORE, ("idempotent-replayed", "true"), ("etag", f'"{known.version}"')]
                return Response(200, headers, orjson.dumps(self.document(known)))
            case Conflict():
                raise Problem(
                    "idempotency_key_reused",
                    "This checkout id was accepted with other content. Use a new id for a new checkout.",
                )
            case TollgateError():
                raise result
            case other:
                raise TypeError(f"an acceptance can't come to {type(other).__name__}")

    def document(self, payment: Payment, *, for_client: bool = False) -> dict[str, Any]:
        """JSON-ready. `for_client`: as its client_secret opens it."""
        document = payment_document(payment)
        if for_client:
            for name in _NOT_FOR_BROWSERS:
                del document[name]
        secrets = self._policy.client_secrets
        document["client_secret"] = secrets.secret(payment.merchant, payment.checkout_id)
        return document

    def authenticate(self, headers: Headers) -> Account:
        """Raises Problem, and NotReady where a key can't be known yet."""
        values = headers.get_all("authorization")
        match = _BEARER.fullmatch(values[0]) if len(values) == 1 else None
        account = self._merchants.find(match[1]) if match else None
        if account is None:
            raise _unauthorized("Send `Authorization: Bearer` with one secret key that is valid now.")
        return account

    def _reader(self, request: Request, checkout_id: str) -> tuple[str, bool]:
        """(merchant, whether by client secret). A secret key outranks a client secret."""
        secret = _client_secret(request.query)
        if secret is None or request.headers.get("authorization") is not None:
            return self.authenticate(request.headers).merchant, False
        merchant = self._policy.client_secrets.merchant(secret, checkout_id)
        if merchant is None:
            raise _unauthorized("This client_secret does not open this payment.")
        return merchant, True


def check_id(headers: Headers, checkout_id: str) -> None:
    """Of a path. Raises Problem when it can be nobody's, or when the header names another payment."""
    if any(value != checkout_id for value in headers.get_all(_CHECKOUT_ID)):
        problem = FieldProblem(CHECKOUT_ID_HEADER, "must equal the id in the path")
        raise Problem("invalid_request", "The header and the path name two payments.", errors=[problem])
    if CHECKOUT_ID.fullmatch(checkout_id) is None:
        raise _not_found()


def _headers_of(payment: Payment) -> list[tuple[str, str]]:
    headers = [NO_STORE, ("etag", f'"{payment.version}"')]
    if payment.status in OPEN:
        headers.append(COME_AGAIN)
    return headers


def _not_found() -> Problem:
    return Problem("not_found", "This merchant has no payment with this id here.")


def _unauthorized(detail: str) -> Problem:
    return Problem("unauthorized", detail, headers=_AUTHENTICATE)


def json_body(request: Request) -> bytes:
    """Raises Problem."""
    types = request.headers.get_all("content-type")
    if types != _PLAIN_JSON and (len(types) != 1 or not _MEDIA_TYPE.fullmatch(types[0])):
        raise Problem("unsupported_media_type", "Send `Content-Type: application/json`.")
    if request.body is None:
        raise Problem("payload_too_large", f"A body has at most {BODY_BYTES_MAX} bytes.")
    return request.body


def _checkout_id(headers: Headers) -> str:
    values = headers.get_all(_CHECKOUT_ID)
    if not values:
        raise Problem("missing_checkout_id", f"Send {CHECKOUT_ID_HEADER}, your own id for this checkout.")
    if len(values) > 1:
        problem = FieldProblem(CHECKOUT_ID_HEADER, "must be there once")
        raise Problem("invalid_request", "Correct every field that is listed.", errors=[problem])
    return values[0]


def _client_secret(query: str) -> str | None:
    """The only query parameter there is. Raises Problem for any other and for a second one."""
    if not query:
        return None
    try:
        pairs = parse_qsl(
            query, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=8
        )
    except ValueError:
        pairs = []
    if len(pairs) != 1 or pairs[0][0] != "client_secret":
        raise Problem("invalid_request", "The only query parameter here is client_secret, once.")
    return pairs[0][1]


def _harmless(traceparent: str | None) -> str | None:
    """A trace context is stored and logged; its hexadecimal digits may spell a card number."""
    return None if traceparent is not None and holds_card_number(traceparent) else traceparent


def _matches(if_none_match: list[str], version: int) -> bool:
    """RFC 9110, 13.1.2: weak comparison over all listed tags; `*` is any."""
    listed = ",".join(if_none_match).strip()
    return listed == "*" or str(version) in _ENTITY_TAG.findall(listed)
