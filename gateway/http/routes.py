"""Which handler answers which method and path, and the edge where errors become problem documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import structlog

from gateway.errors import NotReady
from gateway.http.message import Handler, Request, Response
from gateway.http.problems import Problem
from gateway.metrics import Metrics
from tollgate.errors import Overloaded

_PAYMENT_PREFIX: Final = "/v1/payments/"

log = structlog.get_logger()


class Route(NamedTuple):
    """`name` is the metric's label; `headers` go on every answer, problems included."""

    name: str
    methods: Mapping[str, Handler]
    headers: tuple[tuple[str, str], ...] = ()


class HttpApp:
    """Fixed paths, and one route for everything directly below /v1/payments/."""

    def __init__(self, fixed: Mapping[str, Route], payment: Route, metrics: Metrics) -> None:
        self._fixed = fixed
        self._payment = payment
        self._metrics = metrics

    async def handle(self, request: Request) -> Response:
        """Never raises but for cancellation."""
        route = self._find(request.path)
        if route is None:
            response = Problem("not_found", "No resource has this path.").response()
            self._metrics.answered("unknown", response.status)
            return response
        response = await self._answer(route, request)
        if route.headers:
            response.headers.extend(route.headers)
        self._metrics.answered(route.name, response.status)
        return response

    def _find(self, path: str) -> Route | None:
        route = self._fixed.get(path)
        if route is None and path.startswith(_PAYMENT_PREFIX) and "/" not in path[len(_PAYMENT_PREFIX) :]:
            return self._payment
        return route

    async def _answer(self, route: Route, request: Request) -> Response:
        head = request.method == "HEAD"
        handler = route.methods.get("GET" if head else request.method)
        try:
            if handler is None:
                raise _not_allowed(route)
            response = await handler(request)
        except Problem as problem:
            response = problem.response()
        except Overloaded as error:
            response = Problem("overloaded", error.message).response()
        except NotReady as error:
            response = Problem("not_ready", error.message).response()
        except Exception:  # the edge of the request loop: a defect answers one request and is logged
            log.exception("a handler failed", route=route.name)
            response = Problem(
                "internal", "The request may or may not have had its effect. Retry."
            ).response()
        return response._replace(body=b"") if head else response


def payment_id(path: str) -> str:
    """The id in the path of the payment route."""
    return path[len(_PAYMENT_PREFIX) :]


def _not_allowed(route: Route) -> Problem:
    allowed = set(route.methods)
    if "GET" in allowed:
        allowed.add("HEAD")
    methods = ", ".join(sorted(allowed))
    return Problem("method_not_allowed", f"Allowed here: {methods}.", headers=[("allow", methods)])
