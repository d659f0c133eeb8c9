"""/livez, /readyz and /metrics."""

from __future__ import annotations

import orjson
from prometheus_client import CONTENT_TYPE_LATEST

from gateway.health import Health
from gateway.http.message import Request, Response
from gateway.http.routes import Route
from gateway.metrics import Metrics

_JSON = ("content-type", "application/json")


def ops_routes(health: Health, metrics: Metrics) -> dict[str, Route]:
    async def livez(_request: Request) -> Response:
        return Response(200, [_JSON], orjson.dumps({"status": "ok"}))

    async def readyz(_request: Request) -> Response:
        reason = health.reason()
        if reason is None:
            return Response(200, [_JSON], orjson.dumps({"status": "ready"}))
        body = orjson.dumps({"status": "not_ready", "detail": reason})
        return Response(503, [_JSON, ("retry-after", "1")], body)

    async def render(_request: Request) -> Response:
        return Response(200, [("content-type", CONTENT_TYPE_LATEST)], metrics.render())

    return {
        "/livez": Route("livez", {"GET": livez}),
        "/readyz": Route("readyz", {"GET": readyz}),
        "/metrics": Route("metrics", {"GET": render}),
    }
