"""What clients make this shard ask of the Ledger: bounded in number, each counted, silence told apart.

Nothing is kept here, and nothing survives a crash: what the Ledger decided is durable there, and a client
that heard no answer asks again with the same key.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from gateway.errors import LedgerSilent
from gateway.metrics import Metrics
from tollgate.errors import OperationalError, Overloaded
from tollgate.v1.ledger_pb2 import (
    FindOperationRequest,
    FindOperationResponse,
    ListPaymentsRequest,
    ListPaymentsResponse,
    RequestOperationRequest,
    RequestOperationResponse,
    UpdatePaymentRequest,
    UpdatePaymentResponse,
)

RequestT = TypeVar("RequestT")
AnswerT = TypeVar("AnswerT")


class AskedLedger(Protocol):
    """Each raises OperationalError when no Ledger answers; what was asked may then have been done."""

    async def request_operation(self, request: RequestOperationRequest) -> RequestOperationResponse: ...

    async def find_operation(self, request: FindOperationRequest) -> FindOperationResponse: ...

    async def update_payment(self, request: UpdatePaymentRequest) -> UpdatePaymentResponse: ...

    async def list_payments(self, request: ListPaymentsRequest) -> ListPaymentsResponse: ...


class LedgerCalls:
    """Belongs to one event loop. Each raises LedgerSilent, and Overloaded when too many are under way."""

    def __init__(self, ledger: AskedLedger, metrics: Metrics, in_flight_max: int) -> None:
        self._ledger = ledger
        self._metrics = metrics
        self._in_flight_max = in_flight_max
        self._in_flight = 0

    @property
    def in_flight(self) -> int:
        return self._in_flight

    async def request_operation(self, request: RequestOperationRequest) -> RequestOperationResponse:
        return await self.ask("request_operation", self._ledger.request_operation, request)

    async def find_operation(self, request: FindOperationRequest) -> FindOperationResponse:
        return await self.ask("find_operation", self._ledger.find_operation, request)

    async def update_payment(self, request: UpdatePaymentRequest) -> UpdatePaymentResponse:
        return await self.ask("update_payment", self._ledger.update_payment, request)

    async def list_payments(self, request: ListPaymentsRequest) -> ListPaymentsResponse:
        return await self.ask("list_payments", self._ledger.list_payments, request)

    async def ask(
        self, call: str, ask: Callable[[RequestT], Awaitable[AnswerT]], request: RequestT
    ) -> AnswerT:
        if self._in_flight >= self._in_flight_max:
            self._metrics.ledger_calls.labels(call=call, outcome="refused").inc()
            raise Overloaded("This shard asks the Ledger as much as it may. Retry with the same key.")
        self._in_flight += 1
        try:
            answer = await ask(request)
        except OperationalError as error:
            self._metrics.ledger_calls.labels(call=call, outcome="silent").inc()
            raise LedgerSilent(error.message) from error
        finally:
            self._in_flight -= 1
        self._metrics.ledger_calls.labels(call=call, outcome="answered").inc()
        return answer
