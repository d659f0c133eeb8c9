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
from gateway.http.cold import UNKNOWN, ColdApp, not_allowed
from gateway.http.message import Asking, Handler, Pending, Request, Respond, Response
from gateway.http.problems import Problem, known_problem
from gateway.load_shedding import Gate
from gateway.metrics import Metrics
from gateway.planner import Result

_PAYMENTS_PATH: Final = "/v1/payments"
_PAYMENT_PREFIX: Final = "/v1/payments/"

# Made once: a refusal has to cost a fraction of what it spares.
OVERLOADED: Final = Problem("overloaded", "The shard is offered more than it can do. Retry with the same id.")
_OVERLOADED_RESPONSE: Final = OVERLOADED.response()

log = structlog.get_logger()


class Route(NamedTuple):
    """`name` is the metric's label; `headers` go on every answer to who reads, problems included."""

    name: str
    methods: Mapping[str, Handler]
    headers: tuple[tuple[str, str], ...] = ()


_ANY: Final = Route(UNKNOWN, {})
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class HttpApp:
    """The hot routes, POST /v1/payments and everything directly below /v1/payments/, before the cold app.

    `ops`, by path, are answered at once and pass the gate.
    """

    def __init__(
        self,
        payments: Route,
        payment: Route,
        cold: ColdApp,
        hand_over: HandOver,
        metrics: Metrics,
        gate: Gate,
        ops: Mapping[str, Route],
    ) -> None:
        self._payments = payments
        self._payment = payment
        self._cold = cold
        self._hand_over = hand_over
        self._metrics = metrics
        self._gate = gate
        self._ops = ops
        self._asking: set[asyncio.Task[None]] = set()

    def start(self, request: Request, respond: Respond) -> bool:
        """Answers a hot request through `respond`, now or once it is committed; False when it isn't hot.

        Never raises, never waits: a server that calls it needs no task and no future for a payment.
        """
        route = self._find(request.path)
        if self._gate.is_shut() and not self.is_ops(request.path):
            respond(self.refusal(request, "turn"))
            return True
        if route is None:
            return False
        try:
            step = _handler(route, request.method)(request)
            if isinstance(step, Pending):
                finish = partial(self._finish, route, request.method, step, respond)
                self._hand_over(step.entry, finish)
                return True
            if isinstance(step, Asking):
                asking = asyncio.get_running_loop().create_task(
                    self._ask(route, request.method, step, respond)
                )
                self._asking.add(asking)
                asking.add_done_callback(self._asking.discard)
                return True
        except Exception as error:  # the edge of the request loop
            step = _answer_to(error, route.name)
        respond(self._sealed(route, request.method, step))
        return True

    def refusal(self, request: Request, reason: str) -> Response:
        """503 for a request that nothing has been done for; counted under `reason`."""
        self.count_refusal(reason)
        response = Response(503, list(_OVERLOADED_RESPONSE.headers), _OVERLOADED_RESPONSE.body)
        return self._sealed(self._find(request.path) or _ANY, request.method, response)

    def is_ops(self, path: str) -> bool:
        """Whether it is for whoever looks after the shard: answered whatever the load."""
        return path in self._ops

    def count_refusal(self, reason: str) -> None:
        self._metrics.refused(reason)

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

    async def _ask(self, route: Route, method: str, asking: Asking, respond: Respond) -> None:
        try:
            step = await asking.step
            if isinstance(step, Pending):
                self._hand_over(step.entry, partial(self._finish, route, method, step, respond))
                return
        except Exception as error:  # the edge of the request loop
            step = _answer_to(error, route.name)
        respond(self._sealed(route, method, step))

    def _finish(self, route: Route, method: str, pending: Pending, respond: Respond, result: Result) -> None:
        try:
            response = pending.finish(result)
        except Exception as error:  # the edge of the request loop
            response = _answer_to(error, route.name)
        respond(self._sealed(route, method, response))

    def _sealed(self, route: Route, method: str, response: Response) -> Response:
        if route.headers and method in _READS:
            response.headers.extend(route.headers)
        self._metrics.answered(route.name, response.status)
        return response._replace(body=b"") if method == "HEAD" else response

    def _find(self, path: str) -> Route | None:
        if path == _PAYMENTS_PATH:
            return self._payments
        if path.startswith(_PAYMENT_PREFIX) and "/" not in path[len(_PAYMENT_PREFIX) :]:
            return self._payment
        return self._ops.get(path)


def payment_id(path: str) -> str:
    """The id in the path of the payment route."""
    return path[len(_PAYMENT_PREFIX) :]


def _answer_to(error: Exception, route: str) -> Response:
    """A defect answers one request and is logged; everything else is a problem we know."""
    known = known_problem(error)
    if known is not None:
        return known.response()
    log.error("a handler failed", route=route, exc_info=error)
    return Problem("internal", "The request may or may not have had its effect. Retry.").response()


def _handler(route: Route, method: str) -> Handler:
    handler = route.methods.get("GET" if method == "HEAD" else method)
    if handler is None:
        raise not_allowed({*route.methods} | ({"HEAD"} if "GET" in route.methods else set()))
    return handler
