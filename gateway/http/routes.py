"""Which handler answers which method and path, and the edge where errors become problem documents.

The two hot routes are found here by comparing strings; everything else is the cold app's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import structlog

from gateway.errors import NotReady
from gateway.http.cold import UNKNOWN, ColdApp, not_allowed
from gateway.http.message import Handler, Request, Response
from gateway.http.problems import Problem
from gateway.metrics import Metrics
from tollgate.errors import Overloaded

_PAYMENTS_PATH: Final = "/v1/payments"
_PAYMENT_PREFIX: Final = "/v1/payments/"

log = structlog.get_logger()


class Route(NamedTuple):
    """`name` is the metric's label; `headers` go on every answer, problems included."""

    name: str
    methods: Mapping[str, Handler]
    headers: tuple[tuple[str, str], ...] = ()


class HttpApp:
    """The hot routes, POST /v1/payments and everything directly below /v1/payments/, before the cold app."""

    def __init__(self, payments: Route, payment: Route, cold: ColdApp, metrics: Metrics) -> None:
        self._payments = payments
        self._payment = payment
        self._cold = cold
        self._metrics = metrics

    async def handle(self, request: Request) -> Response:
        """Never raises but for cancellation."""
        route = self._find(request.path)
        name = UNKNOWN if route is None else route.name
        try:
            if route is None:
                name, response = await self._cold.handle(request)
            else:
                response = await _handler(route, request.method)(request)
        except Problem as problem:
            response = problem.response()
        except Overloaded as error:
            response = Problem("overloaded", error.message).response()
        except NotReady as error:
            response = Problem("not_ready", error.message).response()
        except Exception:  # the edge of the request loop: a defect answers one request and is logged
            log.exception("a handler failed", route=name)
            response = Problem(
                "internal", "The request may or may not have had its effect. Retry."
            ).response()
        if route is not None and route.headers:
            response.headers.extend(route.headers)
        self._metrics.answered(name, response.status)
        return response._replace(body=b"") if request.method == "HEAD" else response

    def _find(self, path: str) -> Route | None:
        if path == _PAYMENTS_PATH:
            return self._payments
        if path.startswith(_PAYMENT_PREFIX) and "/" not in path[len(_PAYMENT_PREFIX) :]:
            return self._payment
        return None


def payment_id(path: str) -> str:
    """The id in the path of the payment route."""
    return path[len(_PAYMENT_PREFIX) :]


def _handler(route: Route, method: str) -> Handler:
    handler = route.methods.get("GET" if method == "HEAD" else method)
    if handler is None:
        raise not_allowed({*route.methods} | ({"HEAD"} if "GET" in route.methods else set()))
    return handler
