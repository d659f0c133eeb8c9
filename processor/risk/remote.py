"""The risk service as a processor asks it. Without an answer in time the payment is postponed."""

from __future__ import annotations

import grpc

from processor.risk.assessor import SCORE_MAX, Assessment
from tollgate.errors import OperationalError
from tollgate.v1.payment_pb2 import Payment
from tollgate.v1.risk_pb2 import AssessRequest
from tollgate.v1.risk_pb2_grpc import RiskStub


class RemoteAssessor:
    """Build it inside a running event loop; it connects when first asked, and again by itself."""

    def __init__(self, address: str, timeout_s: float) -> None:
        self._address = address
        self._timeout_s = timeout_s
        options = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000)]
        self._channel = grpc.aio.insecure_channel(address, options=options)
        self._stub = RiskStub(self._channel)

    async def assess(self, payment: Payment) -> Assessment:
        """Raises OperationalError; then nothing may be sent."""
        try:
            answer = await self._stub.Assess(AssessRequest(payment=payment), timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            raise OperationalError(
                f"The risk service at {self._address} gave no assessment ({error.code().name}). Nothing "
                "is sent; it is asked again."
            ) from error
        if not 0 <= answer.score <= SCORE_MAX:
            raise OperationalError(
                f"The risk service at {self._address} gave a score of {answer.score}, which is none. Nothing "
                "is sent; it is asked again."
            )
        return Assessment(answer.score, tuple(answer.reasons), answer.declined)

    def assess_at_once(self, payment: Payment) -> None:
        """The service is always asked."""

    async def close(self) -> None:
        await self._channel.close()
