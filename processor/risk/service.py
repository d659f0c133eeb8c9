"""The risk service: the same assessor behind gRPC. What it can't count is UNAVAILABLE."""

from __future__ import annotations

import grpc

from processor.risk.assessor import RiskAssessor
from tollgate.errors import OperationalError
from tollgate.v1.risk_pb2 import AssessRequest, AssessResponse
from tollgate.v1.risk_pb2_grpc import RiskServicer, add_RiskServicer_to_server


class RiskService(RiskServicer):
    def __init__(self, assessor: RiskAssessor) -> None:
        self._assessor = assessor

    async def Assess(
        self, request: AssessRequest, context: grpc.aio.ServicerContext[AssessRequest, AssessResponse]
    ) -> AssessResponse:
        if not (request.payment.merchant and request.payment.checkout_id):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "The payment has no merchant or id.")
        try:
            made = await self._assessor.assess(request.payment)
        except OperationalError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, error.message)
        return AssessResponse(score=made.score, reasons=made.reasons, declined=made.declined)


async def start_risk(listen: str, assessor: RiskAssessor) -> grpc.aio.Server:
    """Raises RuntimeError when `listen` can't be bound."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])  # else a second one shares the port, unseen
    add_RiskServicer_to_server(RiskService(assessor), server)
    server.add_insecure_port(listen)
    await server.start()
    return server
