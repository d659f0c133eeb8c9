"""Customers and payment methods: made, read, listed, deleted. Tokens only.

They are the Ledger's; a shard checks what it can without it and tells the answer. So these routes work the
same on every shard, and with the Ledger down they are 503 while payments are accepted and read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

import orjson
from starlette.routing import Route

from gateway.http.access import Access
from gateway.http.cold import cold_resource
from gateway.http.message import Request, Response
from gateway.http.payments import JSON, NO_STORE, json_body
from gateway.http.problems import Problem
from gateway.ledger_calls import LedgerCalls
from gateway.list_requests import cursor_of
from gateway.operation_requests import IDEMPOTENCY_KEY_HEADER
from gateway.strict_json import Rejected
from gateway.vault_requests import ID, PageWanted, read_customer, read_page, read_payment_method
from tollgate.v1.ledger_pb2 import (
    CreateCustomerRequest,
    CreateCustomerResponse,
    CreatePaymentMethodRequest,
    CreatePaymentMethodResponse,
    DeletePaymentMethodRequest,
    DeletePaymentMethodResponse,
    FindCustomerRequest,
    FindCustomerResponse,
    FindPaymentMethodRequest,
    FindPaymentMethodResponse,
    ListCustomersRequest,
    ListCustomersResponse,
    ListPaymentMethodsRequest,
    ListPaymentMethodsResponse,
    Refusal,
    RefusalCode,
    VaultPlace,
)
from tollgate.vault_json import customer_document, payment_method_document

CUSTOMERS: Final = "/v1/customers"
METHODS: Final = "/v1/payment_methods"
_REPLAYED: Final = ("idempotent-replayed", "true")
_KEY: Final = IDEMPOTENCY_KEY_HEADER.lower()


class AskedVault(Protocol):
    """Each raises OperationalError when no Ledger answers; what was asked may then have been done."""

    async def create_customer(self, request: CreateCustomerRequest) -> CreateCustomerResponse: ...

    async def find_customer(self, request: FindCustomerRequest) -> FindCustomerResponse: ...

    async def list_customers(self, request: ListCustomersRequest) -> ListCustomersResponse: ...

    async def create_payment_method(
        self, request: CreatePaymentMethodRequest
    ) -> CreatePaymentMethodResponse: ...

    async def find_payment_method(self, request: FindPaymentMethodRequest) -> FindPaymentMethodResponse: ...

    async def list_payment_methods(
        self, request: ListPaymentMethodsRequest
    ) -> ListPaymentMethodsResponse: ...

    async def delete_payment_method(
        self, request: DeletePaymentMethodRequest
    ) -> DeletePaymentMethodResponse: ...


class VaultHandlers:
    """`new_key`: for a POST without a key of the client's. It makes asking a second Ledger safe when the
    first fell silent; the client, who doesn't know it, makes something new with each POST.
    """

    def __init__(
        self,
        calls: LedgerCalls,
        vault: AskedVault,
        access: Access,
        new_key: Callable[[], str],
    ) -> None:
        self._calls = calls
        self._vault = vault
        self._access = access
        self._new_key = new_key

    def routes(self) -> list[Route]:
        return [
            cold_resource(
                CUSTOMERS, "customers", {"POST": self._create_customer, "GET": self._list_customers}
            ),
            cold_resource(f"{CUSTOMERS}/{{id}}", "customer", {"GET": self._find_customer}),
            cold_resource(
                METHODS, "payment_methods", {"POST": self._create_method, "GET": self._list_methods}
            ),
            cold_resource(
                f"{METHODS}/{{id}}",
                "payment_method",
                {"GET": self._find_method, "DELETE": self._delete_method},
            ),
        ]

    async def _create_customer(self, request: Request, _named: Mapping[str, str]) -> Response:
        merchant = self._access.writer(request.headers)
        wanted = read_customer(json_body(request), request.headers.get_all(_KEY))
        if isinstance(wanted, Rejected):
            raise _refused(wanted)
        asked = CreateCustomerRequest(
            merchant=merchant,
            customer=wanted.customer,
            idempotency_key=wanted.idempotency_key or self._new_key(),
        )
        answer = await self._calls.ask("create_customer", self._vault.create_customer, asked)
        match answer.WhichOneof("answer"):
            case "created":
                place = ("location", f"{CUSTOMERS}/{answer.created.id}")
                return _told(201, customer_document(answer.created), place)
            case "known":
                return _told(200, customer_document(answer.known), _REPLAYED)
        raise _said_no(answer.refusal)

    async def _find_customer(self, request: Request, named: Mapping[str, str]) -> Response:
        asked = FindCustomerRequest(merchant=self._access.reader(request.headers), id=_id(named))
        _no_query(request)
        answer = await self._calls.ask("find_customer", self._vault.find_customer, asked)
        if not answer.HasField("customer"):
            raise _not_found()
        return _told(200, customer_document(answer.customer))

    async def _list_customers(self, request: Request, _named: Mapping[str, str]) -> Response:
        merchant = self._access.reader(request.headers)
        wanted = _page(request, of_customers=True)
        asked = ListCustomersRequest(merchant=merchant, limit=wanted.limit, after=wanted.after)
        page = await self._calls.ask("list_customers", self._vault.list_customers, asked)
        following = page.next if page.HasField("next") else None
        return _listed([customer_document(customer) for customer in page.customers], following)

    async def _create_method(self, request: Request, _named: Mapping[str, str]) -> Response:
        merchant = self._access.writer(request.headers)
        wanted = read_payment_method(json_body(request), request.headers.get_all(_KEY))
        if isinstance(wanted, Rejected):
            raise _refused(wanted)
        asked = CreatePaymentMethodRequest(
            merchant=merchant,
            payment_method=wanted.method,
            idempotency_key=wanted.idempotency_key or self._new_key(),
        )
        answer = await self._calls.ask("create_payment_method", self._vault.create_payment_method, asked)
        match answer.WhichOneof("answer"):
            case "created":
                place = ("location", f"{METHODS}/{answer.created.id}")
                return _told(201, payment_method_document(answer.created), place)
            case "known":
                return _told(200, payment_method_document(answer.known), _REPLAYED)
        raise _said_no(answer.refusal)

    async def _find_method(self, request: Request, named: Mapping[str, str]) -> Response:
        asked = FindPaymentMethodRequest(merchant=self._access.reader(request.headers), id=_id(named))
        _no_query(request)
        answer = await self._calls.ask("find_payment_method", self._vault.find_payment_method, asked)
        if not answer.HasField("payment_method"):
            raise _not_found()
        return _told(200, payment_method_document(answer.payment_method))

    async def _list_methods(self, request: Request, _named: Mapping[str, str]) -> Response:
        merchant = self._access.reader(request.headers)
        wanted = _page(request, of_customers=False)
        asked = ListPaymentMethodsRequest(
            merchant=merchant, customer_id=wanted.customer_id, limit=wanted.limit, after=wanted.after
        )
        page = await self._calls.ask("list_payment_methods", self._vault.list_payment_methods, asked)
        following = page.next if page.HasField("next") else None
        return _listed([payment_method_document(method) for method in page.payment_methods], following)

    async def _delete_method(self, request: Request, named: Mapping[str, str]) -> Response:
        """Done already is done: a client that heard no answer deletes again."""
        asked = DeletePaymentMethodRequest(merchant=self._access.writer(request.headers), id=_id(named))
        _no_query(request)
        answer = await self._calls.ask("delete_payment_method", self._vault.delete_payment_method, asked)
        if not answer.found:
            raise _not_found()
        return Response(204, [NO_STORE], b"")


def _id(named: Mapping[str, str]) -> str:
    """Raises Problem for one that can be nobody's."""
    if not ID.fullmatch(named["id"]):
        raise _not_found()
    return named["id"]


def _no_query(request: Request) -> None:
    if request.query:
        raise Problem("invalid_request", "There is no query parameter here.")


def _page(request: Request, *, of_customers: bool) -> PageWanted:
    wanted = read_page(request.query, of_customers=of_customers)
    if isinstance(wanted, Rejected):
        raise Problem("invalid_request", "Correct every parameter that is listed.", errors=wanted.problems)
    return wanted


def _told(status: int, document: dict[str, object], *headers: tuple[str, str]) -> Response:
    return Response(status, [JSON, NO_STORE, *headers], orjson.dumps(document))


def _listed(data: list[dict[str, object]], following: VaultPlace | None) -> Response:
    return _told(200, {"data": data, "next_cursor": cursor_of(following) if following else None})


def _refused(rejected: Rejected) -> Problem:
    return Problem("invalid_request", "Correct every field that is listed.", errors=rejected.problems)


def _said_no(refusal: Refusal) -> Problem:
    code = RefusalCode.Name(refusal.code).removeprefix("REFUSAL_CODE_").lower()
    return Problem(code, refusal.message)


def _not_found() -> Problem:
    return Problem("not_found", "This merchant keeps nothing with this id here.")
