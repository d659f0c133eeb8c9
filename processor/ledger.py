"""The Ledger service: what the shards need to know of Postgres, over gRPC. Postgres down: UNAVAILABLE."""

from __future__ import annotations

import grpc

from processor.storage.database import Pool
from processor.storage.merchants import list_merchants
from processor.storage.payments import find_payment
from tollgate.errors import OperationalError
from tollgate.v1.ledger_pb2 import (
    FindPaymentRequest,
    FindPaymentResponse,
    ListMerchantsRequest,
    ListMerchantsResponse,
)
from tollgate.v1.ledger_pb2_grpc import LedgerServicer, add_LedgerServicer_to_server


class LedgerService(LedgerServicer):
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

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


async def start_ledger(listen: str, pool: Pool) -> grpc.aio.Server:
    """Raises RuntimeError when `listen` can't be bound."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])  # else a second one shares the port, unseen
    add_LedgerServicer_to_server(LedgerService(pool), server)
    server.add_insecure_port(listen)
    await server.start()
    return server
