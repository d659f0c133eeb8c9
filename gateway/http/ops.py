"""/livez, /readyz and /metrics."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.health import Health
from gateway.metrics import Metrics


def ops_routes(health: Health, metrics: Metrics) -> list[Route]:
    async def livez(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_request: Request) -> Response:
        reason = health.reason()
        if reason is None:
            refusing = {} if health.refusal is None else {"detail": health.refusal}
            return JSONResponse({"status": "ready", **refusing})
        return JSONResponse({"status": "not_ready", "detail": reason}, 503, headers={"retry-after": "1"})

    async def render(_request: Request) -> Response:
        return Response(metrics.render(), headers={"content-type": CONTENT_TYPE_LATEST})

    return [
        Route("/livez", livez, name="livez"),
        Route("/readyz", readyz, name="readyz"),
        Route("/metrics", render, name="metrics"),
    ]
