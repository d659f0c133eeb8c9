"""What this shard asks of the Ledger. Any of the targets will do; none may be there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from grpc import StatusCode, aio

from gateway.rpc.channel import open_channel
from gateway.rpc.together import Together
from tollgate.errors import OperationalError, RejectedInput
from tollgate.v1.ledger_pb2 import (
    FindOperationRequest,
    FindOperationResponse,
    FindPaymentsRequest,
    ListMerchantsRequest,
    ListMerchantsResponse,
    ListPaymentsRequest,
    ListPaymentsResponse,
    PaymentName,
    RequestOperationRequest,
    RequestOperationResponse,
    UpdatePaymentRequest,
    UpdatePaymentResponse,
)
from tollgate.v1.ledger_pb2_grpc import LedgerStub, VaultStub
from tollgate.v1.payment_pb2 import Payment

if TYPE_CHECKING:
    from tollgate.v1.ledger_pb2_grpc import LedgerAsyncStub, VaultAsyncStub

_TIMEOUT_S = 2.0
# Each target; what waits for a lock in Postgres waits up to 5 s there. All targets together stay below
# nginx's 35 s as long as there are no more than six.
CLIENT_TIMEOUT_S = 5.0
# A payment is 20 kB at most: far from the 4 MB that gRPC takes.
_FOUND_TOGETHER_MAX = 64
AnswerT = TypeVar("AnswerT")


class LedgerClient:
    """Keeps to the target that answered last."""

    def __init__(self, targets: Sequence[str]) -> None:
        self._channels = [open_channel(target) for target in targets]
        self._finding = Together(self._find_payments, _FOUND_TOGETHER_MAX)

    async def list_merchants(self) -> ListMerchantsResponse:
        """Raises OperationalError when no target answers."""
        return await self._first_answer(
            lambda ledger: ledger.ListMerchants(ListMerchantsRequest(), timeout=_TIMEOUT_S)
        )

    async def find_payment(self, merchant: str, checkout_id: str, timeout_s: float) -> Payment | None:
        """Postgres' word. Each target gets `timeout_s`. Raises OperationalError when none answers."""
        return await self._finding.ask((merchant, checkout_id), timeout_s)

    async def _find_payments(
        self, names: Sequence[tuple[str, str]], timeout_s: float
    ) -> list[Payment | None]:
        wanted = [PaymentName(merchant=merchant, checkout_id=checkout_id) for merchant, checkout_id in names]
        request = FindPaymentsRequest(names=wanted)
        answer = await self._first_answer(lambda ledger: ledger.FindPayments(request, timeout=timeout_s))
        found = {(payment.merchant, payment.checkout_id): payment for payment in answer.payments}
        return [found.get(name) for name in names]

    # Asking a second target is safe after a first one fell silent: an operation has its key, a change its
    # version, and the rest are reads.

    async def request_operation(self, request: RequestOperationRequest) -> RequestOperationResponse:
        return await self._first_answer(
            lambda ledger: ledger.RequestOperation(request, timeout=CLIENT_TIMEOUT_S)
        )

    async def find_operation(self, request: FindOperationRequest) -> FindOperationResponse:
        return await self._first_answer(
            lambda ledger: ledger.FindOperation(request, timeout=CLIENT_TIMEOUT_S)
        )

    async def update_payment(self, request: UpdatePaymentRequest) -> UpdatePaymentResponse:
        return await self._first_answer(
            lambda ledger: ledger.UpdatePayment(request, timeout=CLIENT_TIMEOUT_S)
        )

    async def list_payments(self, request: ListPaymentsRequest) -> ListPaymentsResponse:
        return await self._first_answer(lambda ledger: ledger.ListPayments(request, timeout=CLIENT_TIMEOUT_S))

    async def ask_vault(self, ask: Callable[[VaultAsyncStub], Awaitable[AnswerT]]) -> AnswerT:
        """Served beside the Ledger, by whoever serves it."""
        return await self._first_channel(lambda channel: ask(VaultStub(channel)))

    async def _first_answer(self, ask: Callable[[LedgerAsyncStub], Awaitable[AnswerT]]) -> AnswerT:
        return await self._first_channel(lambda channel: ask(LedgerStub(channel)))

    async def _first_channel(self, ask: Callable[[aio.Channel], Awaitable[AnswerT]]) -> AnswerT:
        reason = "none is configured"
        for channel in list(self._channels):
            try:
                return await ask(channel)
            except aio.AioRpcError as error:
                if error.code() is StatusCode.INVALID_ARGUMENT:
                    raise RejectedInput(f"The Ledger can't make sense of this: {error.details()}") from error
                reason = str(error.code())
                if self._channels[0] is channel:  # else somebody else has found out before
                    self._channels.append(self._channels.pop(0))
        raise OperationalError(f"No Ledger answered ({reason}). What is known here stays as it is.")

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()
