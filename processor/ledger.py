"""The Ledger service: what the shards need to know of Postgres, over gRPC. Postgres down: UNAVAILABLE."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import grpc

from processor.storage.database import Pool
from processor.storage.merchants import list_merchants
from processor.storage.outbox import latest_versions
from processor.storage.payments import find_payment
from tollgate.errors import OperationalError, RejectedInput
from tollgate.v1.ledger_pb2 import (
    FindPaymentRequest,
    FindPaymentResponse,
    ListMerchantsRequest,
    ListMerchantsResponse,
    ListShardPaymentsRequest,
    ListShardPaymentsResponse,
)
from tollgate.v1.ledger_pb2_grpc import LedgerServicer, add_LedgerServicer_to_server
from tollgate.v1.payment_pb2 import Payment

OwnerOf = Callable[[str], int | None]


class LedgerService(LedgerServicer):
    def __init__(self, pool: Pool, owner_of: OwnerOf) -> None:
        self._pool = pool
        self._owner_of = owner_of

    async def FindPayment(
        self,
        request: FindPaymentRequest,
        context: grpc.aio.ServicerContext[FindPaymentRequest, FindPaymentResponse],
    ) -> FindPaymentResponse:
        try:
            payment = await find_payment(self._pool, request.merchant, request.checkout_id)
        except OperationalError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, error.message)
        return FindPaymentResponse(payment=payment)

    async def ListMerchants(
        self,
        request: ListMerchantsRequest,
        context: grpc.aio.ServicerContext[ListMerchantsRequest, ListMerchantsResponse],
    ) -> ListMerchantsResponse:
        try:
            merchants = await list_merchants(self._pool)
        except OperationalError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, error.message)
        return ListMerchantsResponse(merchants=merchants)

    async def ListShardPayments(
        self,
        request: ListShardPaymentsRequest,
        context: grpc.aio.ServicerContext[ListShardPaymentsRequest, ListShardPaymentsResponse],
    ) -> ListShardPaymentsResponse:
        """Each page looks at as many versions, however few of them are the shard's."""
        try:
            page = await latest_versions(self._pool, request.shard, request.changed_since_us, request.cursor)
        except RejectedInput as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
        except OperationalError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, error.message)
        payments = [
            Payment.FromString(version.snapshot)
            for version in page.versions
            if version.is_shipped or self._owner_of(version.checkout_id) == request.shard
        ]
        return ListShardPaymentsResponse(payments=payments, next_cursor=page.next_cursor)


# Twice what two shards ask at a time; beyond that RESOURCE_EXHAUSTED, and the shard takes it for a silence.
_CALLS_MAX: Final = 1024


async def start_ledger(listen: str, pool: Pool, owner_of: OwnerOf) -> grpc.aio.Server:
    """Raises RuntimeError when `listen` can't be bound."""
    options = [("grpc.so_reuseport", 0)]  # else a second one shares the port, unseen
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=_CALLS_MAX)
    add_LedgerServicer_to_server(LedgerService(pool, owner_of), server)
    server.add_insecure_port(listen)
    await server.start()
    return server
