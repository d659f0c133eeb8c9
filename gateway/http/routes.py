"""Which handler answers which method and path, and the edge where errors become problem documents.

The two hot routes are found here by comparing strings; everything else is the cold app's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Final, NamedTuple

import structlog

from gateway.committer import HandOver
from gateway.errors import NotReady
from gateway.http.cold import UNKNOWN, ColdApp, not_allowed
from gateway.http.message import Handler, Pending, Request, Respond, Response
from gateway.http.problems import Problem
from gateway.metrics import Metrics
from gateway.planner import Result
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

    def __init__(
        self, payments: Route, payment: Route, cold: ColdApp, hand_over: HandOver, metrics: Metrics
    ) -> None:
        self._payments = payments
        self._payment = payment
        self._cold = cold
        self._hand_over = hand_over
        self._metrics = metrics

    def start(self, request: Request, respond: Respond) -> bool:
        """Answers a hot request through `respond`, now or once it is committed; False when it isn't hot.

        Never raises, never waits: a server that calls it needs no task and no future for a payment.
        """
        route = self._find(request.path)
        if route is None:
            return False
        try:
            step = _handler(route, request.method)(request)
            if isinstance(step, Pending):
                self._hand_over(step.entry, partial(self._finish, route, request, step, respond))
                return True
        except Exception as error:  # the edge of the request loop
            step = _answer_to(error, route.name)
        respond(self._sealed(route, request, step))
        return True

    async def handle(self, request: Request) -> Response:
        """Any request, for servers that await their answers. Never raises but for cancellation."""
        waiter: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

        def respond(response: Response) -> None:
            if not waiter.done():  # its client may have gone
                waiter.set_result(response)

        if self.start(request, respond):
            return await waiter
        return await self.handle_cold(request)

    async def handle_cold(self, request: Request) -> Response:
        name = UNKNOWN
        try:
            name, response = await self._cold.handle(request)
        except Exception as error:  # the edge of the request loop
            response = _answer_to(error, name)
        self._metrics.answered(name, response.status)
        return response._replace(body=b"") if request.method == "HEAD" else response

    def _finish(
        self, route: Route, request: Request, pending: Pending, respond: Respond, result: Result
    ) -> None:
        try:
            response = pending.finish(result)
        except Exception as error:  # the edge of the request loop
            response = _answer_to(error, route.name)
        respond(self._sealed(route, request, response))

    def _sealed(self, route: Route, request: Request, response: Response) -> Response:
        if route.headers:
            response.headers.extend(route.headers)
        self._metrics.answered(route.name, response.status)
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


def _answer_to(error: Exception, route: str) -> Response:
    """A defect answers one request and is logged; everything else is a problem we know."""
    if isinstance(error, Problem):
        return error.response()
    if isinstance(error, Overloaded):
        return Problem("overloaded", error.message).response()
    if isinstance(error, NotReady):
        return Problem("not_ready", error.message).response()
    log.error("a handler failed", route=route, exc_info=error)
    return Problem("internal", "The request may or may not have had its effect. Retry.").response()


def _handler(route: Route, method: str) -> Handler:
    handler = route.methods.get("GET" if method == "HEAD" else method)
    if handler is None:
        raise not_allowed({*route.methods} | ({"HEAD"} if "GET" in route.methods else set()))
    return handler
