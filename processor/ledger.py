"""The Ledger service: what the shards need of Postgres, over gRPC. Postgres down: UNAVAILABLE.

What was decided is durable before it is answered. A refusal is an answer like any other; INVALID_ARGUMENT is
only for what no shard sends.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

import grpc

from processor.answering import LIST_MAX, answered, bounded, refusal
from processor.operation_request import OPERATION_TYPE, Accepted, Known, Refused, Wanted
from processor.storage.database import Pool
from processor.storage.lists import Filter, Place, list_payments
from processor.storage.merchants import list_merchants
from processor.storage.outbox import latest_versions
from processor.storage.payments import find_payments
from processor.storage.requests import find_operation, request_operation, update_payment
from processor.vault_service import VaultService
from tollgate.clock import Clock
from tollgate.v1.ledger_pb2 import (
    FindOperationRequest,
    FindOperationResponse,
    FindPaymentsRequest,
    FindPaymentsResponse,
    ListMerchantsRequest,
    ListMerchantsResponse,
    ListPaymentsRequest,
    ListPaymentsResponse,
    ListPlace,
    ListShardPaymentsRequest,
    ListShardPaymentsResponse,
    RequestOperationRequest,
    RequestOperationResponse,
    UpdatePaymentRequest,
    UpdatePaymentResponse,
)
from tollgate.v1.ledger_pb2_grpc import (
    LedgerServicer,
    add_LedgerServicer_to_server,
    add_VaultServicer_to_server,
)
from tollgate.v1.payment_pb2 import Payment

OwnerOf = Callable[[str], int | None]

# Twice what two shards ask at a time; beyond that RESOURCE_EXHAUSTED, and the shard takes it for a silence.
_CALLS_MAX: Final = 1024
_KIND: Final = {number: kind for kind, number in OPERATION_TYPE.items()}


class LedgerService(LedgerServicer):
    """`on_accepted`: an operation is due and a version is to be told, so dispatcher and relay are woken."""

    def __init__(
        self,
        pool: Pool,
        owner_of: OwnerOf,
        clock: Clock,
        on_accepted: Callable[[], None],
        new_operation_id: Callable[[], str] = lambda: f"op_{secrets.token_hex(12)}",
    ) -> None:
        self._pool = pool
        self._owner_of = owner_of
        self._clock = clock
        self._on_accepted = on_accepted
        self._new_operation_id = new_operation_id

    async def FindPayments(
        self,
        request: FindPaymentsRequest,
        context: grpc.aio.ServicerContext[FindPaymentsRequest, FindPaymentsResponse],
    ) -> FindPaymentsResponse:
        if len(request.names) > LIST_MAX:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"{len(request.names)} payments are asked for; ask for at most {LIST_MAX} at a time.",
            )
        names = [(name.merchant, name.checkout_id) for name in request.names]
        return FindPaymentsResponse(payments=await answered(context, find_payments(self._pool, names)))

    async def ListMerchants(
        self,
        request: ListMerchantsRequest,
        context: grpc.aio.ServicerContext[ListMerchantsRequest, ListMerchantsResponse],
    ) -> ListMerchantsResponse:
        return ListMerchantsResponse(merchants=await answered(context, list_merchants(self._pool)))

    async def ListShardPayments(
        self,
        request: ListShardPaymentsRequest,
        context: grpc.aio.ServicerContext[ListShardPaymentsRequest, ListShardPaymentsResponse],
    ) -> ListShardPaymentsResponse:
        """Each page looks at as many versions, however few of them are the shard's."""
        reading = latest_versions(self._pool, request.shard, request.changed_since_us, request.cursor)
        page = await answered(context, reading)
        payments = [
            Payment.FromString(version.snapshot)
            for version in page.versions
            if version.is_shipped or self._owner_of(version.checkout_id) == request.shard
        ]
        return ListShardPaymentsResponse(payments=payments, next_cursor=page.next_cursor)

    async def RequestOperation(
        self,
        request: RequestOperationRequest,
        context: grpc.aio.ServicerContext[RequestOperationRequest, RequestOperationResponse],
    ) -> RequestOperationResponse:
        amount = request.amount if request.HasField("amount") else None
        if request.type not in _KIND or not request.idempotency_key or (amount is not None and amount < 1):
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                "An operation has a type, a key and no amount below 1. Report this: the shard checks it.",
            )
        wanted = Wanted(_KIND[request.type], amount, request.reason, request.idempotency_key)
        new_id = self._new_operation_id()
        deciding = request_operation(
            self._pool, request.merchant, request.checkout_id, wanted, new_id, self._clock.now_us()
        )
        match await answered(context, deciding):
            case Accepted(payment, operation):
                self._on_accepted()
                return RequestOperationResponse(accepted=operation, payment=payment)
            case Known(operation):
                return RequestOperationResponse(known=operation)
            case Refused() as refused:
                return RequestOperationResponse(refusal=refusal(refused))

    async def FindOperation(
        self,
        request: FindOperationRequest,
        context: grpc.aio.ServicerContext[FindOperationRequest, FindOperationResponse],
    ) -> FindOperationResponse:
        finding = find_operation(self._pool, request.merchant, request.checkout_id, request.operation_id)
        return FindOperationResponse(operation=await answered(context, finding))

    async def UpdatePayment(
        self,
        request: UpdatePaymentRequest,
        context: grpc.aio.ServicerContext[UpdatePaymentRequest, UpdatePaymentResponse],
    ) -> UpdatePaymentResponse:
        updating = update_payment(
            self._pool,
            request.merchant,
            request.checkout_id,
            request.version,
            request.description if request.HasField("description") else None,
            request.metadata.entries if request.HasField("metadata") else None,
            self._clock.now_us(),
        )
        updated = await answered(context, updating)
        if isinstance(updated, Refused):
            return UpdatePaymentResponse(refusal=refusal(updated))
        self._on_accepted()
        return UpdatePaymentResponse(payment=updated)

    async def ListPayments(
        self,
        request: ListPaymentsRequest,
        context: grpc.aio.ServicerContext[ListPaymentsRequest, ListPaymentsResponse],
    ) -> ListPaymentsResponse:
        wanted = Filter(
            request.status or None,
            request.customer_id or None,
            request.created_from_us if request.HasField("created_from_us") else None,
            request.created_before_us if request.HasField("created_before_us") else None,
        )
        after = (
            Place(request.after.created_at_us, request.after.checkout_id)
            if request.HasField("after")
            else None
        )
        listing = list_payments(self._pool, request.merchant, wanted, bounded(request.limit), after)
        payments, following = await answered(context, listing)
        place = (
            ListPlace(created_at_us=following.created_at_us, checkout_id=following.checkout_id)
            if following
            else None
        )
        return ListPaymentsResponse(payments=payments, next=place)


async def start_ledger(
    listen: str, pool: Pool, owner_of: OwnerOf, clock: Clock, on_accepted: Callable[[], None]
) -> grpc.aio.Server:
    """Ledger and Vault at one address. Raises RuntimeError when `listen` can't be bound."""
    options = [("grpc.so_reuseport", 0)]  # else a second one shares the port, unseen
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=_CALLS_MAX)
    add_LedgerServicer_to_server(LedgerService(pool, owner_of, clock, on_accepted), server)
    add_VaultServicer_to_server(VaultService(pool, clock), server)
    server.add_insecure_port(listen)
    await server.start()
    return server
