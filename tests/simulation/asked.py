"""Whom a shard asks, over the simulated network: the Ledger of any processor, and the other shards."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar, cast

from tests.simulation.network import Network
from tests.simulation.processor import SimProcessor
from tests.simulation.shard import Context, SimShard, called
from tollgate.errors import OperationalError
from tollgate.v1.ledger_pb2 import (
    FindOperationRequest,
    FindOperationResponse,
    FindPaymentsRequest,
    ListPaymentsRequest,
    ListPaymentsResponse,
    PaymentName,
    RequestOperationRequest,
    RequestOperationResponse,
    UpdatePaymentRequest,
    UpdatePaymentResponse,
)
from tollgate.v1.payment_pb2 import Payment

_CALL_S = 1.5
T = TypeVar("T")


class Asked:
    def __init__(
        self,
        network: Network,
        shards: Mapping[int, SimShard | None],
        processors: Mapping[int, SimProcessor | None],
    ) -> None:
        self._network = network
        self._shards = shards
        self._processors = processors

    async def find_payment(self, merchant: str, checkout_id: str, timeout_s: float) -> Payment | None:
        request = FindPaymentsRequest(names=[PaymentName(merchant=merchant, checkout_id=checkout_id)])
        answer = await self._ledger(lambda p: p.ledger.FindPayments(request, cast(Any, Context())), timeout_s)
        return answer.payments[0] if answer.payments else None

    async def get_payment(
        self, address: str, merchant: str, checkout_id: str, timeout_s: float
    ) -> Payment | None:
        shard = self._shards.get(shard_at(address))
        if shard is None:
            raise OperationalError("The shard is down.")
        act = shard.get_payment
        return await called(
            self._network, lambda: shard.process, lambda: act(merchant, checkout_id), timeout_s
        )

    async def request_operation(self, request: RequestOperationRequest) -> RequestOperationResponse:
        return await self._ledger(lambda p: p.ledger.RequestOperation(request, cast(Any, Context())))

    async def find_operation(self, request: FindOperationRequest) -> FindOperationResponse:
        return await self._ledger(lambda p: p.ledger.FindOperation(request, cast(Any, Context())))

    async def update_payment(self, request: UpdatePaymentRequest) -> UpdatePaymentResponse:
        return await self._ledger(lambda p: p.ledger.UpdatePayment(request, cast(Any, Context())))

    async def list_payments(self, request: ListPaymentsRequest) -> ListPaymentsResponse:
        return await self._ledger(lambda p: p.ledger.ListPayments(request, cast(Any, Context())))

    async def _ledger(self, act: Callable[[SimProcessor], Awaitable[T]], timeout_s: float = _CALL_S) -> T:
        """The first processor that answers."""
        silent = OperationalError("No Ledger answers.")
        for processor in list(self._processors.values()):
            if processor is not None:
                try:
                    return await _ask(self._network, processor, act, timeout_s)
                except OperationalError as error:
                    silent = error
        raise silent


async def _ask(
    network: Network, processor: SimProcessor, act: Callable[[SimProcessor], Awaitable[T]], timeout_s: float
) -> T:
    return await called(network, lambda: processor.process, lambda: act(processor), timeout_s)


def address_of(shard: int) -> str:
    return f"127.0.0.1:{7170 + shard}"


def shard_at(address: str) -> int:
    return int(address.rpartition(":")[2]) - 7170
