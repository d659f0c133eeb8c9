"""/livez, /readyz and /metrics: plain handlers, answered in the turn of the loop that reads the request.

They pass every bound that other requests meet: who looks after a shard must see it best when it is loaded.
"""

from __future__ import annotations

import orjson
from prometheus_client import CONTENT_TYPE_LATEST

from gateway.health import Health
from gateway.http.message import Request, Response
from gateway.http.routes import Route
from gateway.metrics import Metrics

_JSON = ("content-type", "application/json")


def ops_routes(health: Health, metrics: Metrics) -> dict[str, Route]:
    """By path."""

    def livez(_request: Request) -> Response:
        return Response(200, [_JSON], b'{"status":"ok"}')

    def readyz(_request: Request) -> Response:
        reason = health.reason()
        if reason is None:
            refusing = {} if health.refusal is None else {"detail": health.refusal}
            return Response(200, [_JSON], orjson.dumps({"status": "ready", **refusing}))
        body = orjson.dumps({"status": "not_ready", "detail": reason})
        return Response(503, [_JSON, ("retry-after", "1")], body)

    def render(_request: Request) -> Response:
        return Response(200, [("content-type", CONTENT_TYPE_LATEST)], metrics.render())

    return {
        "/livez": Route("livez", {"GET": livez}),
        "/readyz": Route("readyz", {"GET": readyz}),
        "/metrics": Route("metrics", {"GET": render}),
    }
