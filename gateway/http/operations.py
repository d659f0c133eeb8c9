"""What is done to a payment after it was accepted: capture, cancel, refunds, PATCH; and the list of payments.

The Ledger decides; a shard checks what it can without it and tells the answer. So these routes work the same
on every shard, and with the Ledger down they are 503 while payments are accepted and read. What the Ledger
made of a payment is stored here before it is answered, where this shard is its owner: the next read shows it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Final, NoReturn

import orjson
from msgspec import UnsetType
from starlette.routing import Route

from gateway.elsewhere import Elsewhere
from gateway.http.access import Access
from gateway.http.cold import cold_route
from gateway.http.message import Asking, Request, Response
from gateway.http.payments import COME_AGAIN, JSON, NO_STORE, PaymentHandlers, check_id, json_body
from gateway.http.problems import Problem
from gateway.ledger_calls import LedgerCalls
from gateway.list_requests import cursor_of, read_list_query
from gateway.operation_requests import IDEMPOTENCY_KEY_HEADER, IF_MATCH_HEADER, read_change, read_operation
from gateway.strict_json import Rejected
from tollgate.payment_json import operation_document
from tollgate.v1.ledger_pb2 import (
    FindOperationRequest,
    Metadata,
    Refusal,
    RefusalCode,
    RequestOperationRequest,
    UpdatePaymentRequest,
)
from tollgate.v1.payment_pb2 import MetadataEntry, Operation, OperationStatus, OperationType

_PAYMENT: Final = "/v1/payments/{id}"
_OPERATION_ID: Final = re.compile(r"[A-Za-z0-9_]{1,64}")
_UNDER_WAY: Final = OperationStatus.OPERATION_STATUS_PENDING
_REPLAYED: Final = ("idempotent-replayed", "true")
_SOON: Final = ("retry-after", "1")
_CODE: Final[dict[RefusalCode.ValueType, str]] = {
    number: name.removeprefix("REFUSAL_CODE_").lower() for name, number in RefusalCode.items() if number
}


class OperationHandlers:
    def __init__(
        self,
        payments: PaymentHandlers,
        ledger: LedgerCalls,
        elsewhere: Elsewhere,
        access: Access,
    ) -> None:
        self._payments = payments
        self._ledger = ledger
        self._elsewhere = elsewhere
        self._access = access

    def routes(self) -> list[Route]:
        kinds = {
            "capture": OperationType.OPERATION_TYPE_CAPTURE,
            "cancel": OperationType.OPERATION_TYPE_CANCEL,
            "refunds": OperationType.OPERATION_TYPE_REFUND,
        }
        return [
            *(
                cold_route("POST", f"{_PAYMENT}/{name}", name, partial(self._request, kind))
                for name, kind in kinds.items()
            ),
            cold_route("GET", f"{_PAYMENT}/operations/{{operation}}", "operation", self._find),
        ]

    def change(self, request: Request) -> Asking:
        """PATCH of a payment."""
        return Asking(self._change(request))

    def list_them(self, request: Request) -> Asking:
        return Asking(self._list(request))

    async def _request(
        self, kind: OperationType.ValueType, request: Request, named: Mapping[str, str]
    ) -> Response:
        merchant, checkout_id = self._writer(request, named["id"]), named["id"]
        body = b"" if request.body == b"" else json_body(request)  # of nothing the type says nothing
        keys = request.headers.get_all(IDEMPOTENCY_KEY_HEADER.lower())
        if not keys:
            raise Problem(
                "missing_idempotency_key", f"Send {IDEMPOTENCY_KEY_HEADER}, your own key for this operation."
            )
        wanted = read_operation(kind, body, keys)
        if isinstance(wanted, Rejected):
            raise _refused(wanted)
        asked = RequestOperationRequest(
            merchant=merchant,
            checkout_id=checkout_id,
            type=kind,
            amount=wanted.amount,
            reason=wanted.reason,
            idempotency_key=wanted.idempotency_key,
        )
        answer = await self._ledger.request_operation(asked)
        match answer.WhichOneof("answer"):
            case "accepted":
                await self._elsewhere.learned(answer.payment)
                return _told(202, checkout_id, answer.accepted)
            case "known":
                return _told(200, checkout_id, answer.known, _REPLAYED)
        return await self._said_no(merchant, checkout_id, answer.refusal)

    async def _find(self, request: Request, named: Mapping[str, str]) -> Response:
        merchant, checkout_id = self._access.reader(request.headers), named["id"]
        check_id(request.headers, checkout_id)
        operation_id = named["operation"]
        if not _OPERATION_ID.fullmatch(operation_id):
            raise _no_operation()
        stored = self._payments.stored(merchant, checkout_id)
        for operation in stored.operations if stored else ():
            if operation.id == operation_id and operation.status != _UNDER_WAY:
                return _told(200, checkout_id, operation)  # it has ended: nobody knows better
        asked = FindOperationRequest(merchant=merchant, checkout_id=checkout_id, operation_id=operation_id)
        answer = await self._ledger.find_operation(asked)
        if not answer.HasField("operation"):
            raise _no_operation()
        return _told(200, checkout_id, answer.operation)

    async def _change(self, request: Request) -> Response:
        checkout_id = request.path.rpartition("/")[2]
        merchant = self._writer(request, checkout_id)
        body = json_body(request)
        tags = request.headers.get_all(IF_MATCH_HEADER.lower())
        if not tags:
            raise Problem(
                "precondition_required",
                f"Send {IF_MATCH_HEADER} with the ETag of the payment as you read it.",
            )
        wanted = read_change(body, tags)
        if isinstance(wanted, Rejected):
            raise _refused(wanted)
        if wanted.version is None:
            raise Problem("version_mismatch", f"{IF_MATCH_HEADER} is no ETag of this payment. Read it again.")
        asked = UpdatePaymentRequest(merchant=merchant, checkout_id=checkout_id, version=wanted.version)
        description, metadata = wanted.change.description, wanted.change.metadata
        if not isinstance(description, UnsetType):
            asked.description = description or ""
        if not isinstance(metadata, UnsetType):
            entries = [MetadataEntry(key=key, value=value) for key, value in (metadata or {}).items()]
            asked.metadata.CopyFrom(Metadata(entries=entries))
        answer = await self._ledger.update_payment(asked)
        if answer.WhichOneof("answer") == "payment":
            await self._elsewhere.learned(answer.payment)
            return self._payments.answer(answer.payment)
        return await self._said_no(merchant, checkout_id, answer.refusal)

    async def _list(self, request: Request) -> Response:
        wanted = read_list_query(request.query, self._access.reader(request.headers))
        if isinstance(wanted, Rejected):
            raise Problem(
                "invalid_request", "Correct every parameter that is listed.", errors=wanted.problems
            )
        page = await self._ledger.list_payments(wanted)
        answer = {
            "data": [self._payments.document(payment) for payment in page.payments],
            "next_cursor": cursor_of(page.next) if page.HasField("next") else None,
        }
        return Response(200, [JSON, NO_STORE], orjson.dumps(answer))

    def _writer(self, request: Request, checkout_id: str) -> str:
        """The merchant who may ask for something to be done to this payment."""
        merchant = self._access.writer(request.headers)
        check_id(request.headers, checkout_id)
        return merchant

    async def _said_no(self, merchant: str, checkout_id: str, refusal: Refusal) -> NoReturn:
        """Raises what the Ledger refused. What it doesn't know is on its way, or nobody's."""
        code = _CODE.get(refusal.code)
        if code is None:
            raise ValueError(f"the Ledger answered with code {refusal.code}")
        if code != "not_yet_processed":
            raise Problem(code, refusal.message)
        if self._payments.stored(merchant, checkout_id) is None:
            await self._payments.look_for(merchant, checkout_id)
        raise Problem(code, refusal.message, headers=[_SOON])


def _told(status: int, checkout_id: str, operation: Operation, *headers: tuple[str, str]) -> Response:
    told = [JSON, NO_STORE, *headers]
    if status == 202:
        told.append(("location", f"/v1/payments/{checkout_id}/operations/{operation.id}"))
    if operation.status == _UNDER_WAY:
        told.append(COME_AGAIN)
    return Response(status, told, orjson.dumps(operation_document(operation)))


def _refused(rejected: Rejected) -> Problem:
    return Problem("invalid_request", "Correct every field that is listed.", errors=rejected.problems)


def _no_operation() -> Problem:
    return Problem("not_found", "This payment has no operation with this id.")
