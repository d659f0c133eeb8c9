"""Everything that is not hot: a Starlette app behind the hot routes, called in memory.

A routed Starlette request costs several plain ones, so the two hot routes stand in front of it. By the time a
request comes here its body was read within bounds, whichever server it came from, so the ASGI call needs no
socket: one message in, one response out. Answers are whole, never streamed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response as StarletteResponse
from starlette.routing import Route
from starlette.types import Message, Scope

from gateway.http.message import Request, Response
from gateway.http.problems import Problem, known_problem
from tollgate.errors import TollgateError

UNKNOWN: Final = "unknown"
_NO_SUCH_PATH: Final = "No resource has this path."
_ORIGINAL: Final = "tollgate.request"

# The request, and what its path names.
ColdHandler = Callable[[Request, Mapping[str, str]], Awaitable[Response]]


def cold_route(method: str, path: str, name: str, handler: ColdHandler) -> Route:
    """`name` is the metric's label. The handler raises Problem like the hot ones."""
    return cold_resource(path, name, {method: handler})


def cold_resource(path: str, name: str, handlers: Mapping[str, ColdHandler]) -> Route:
    """The same with several methods, so that a refusal of any other names them all."""

    async def answer(request: StarletteRequest) -> StarletteResponse:
        handler = handlers["GET" if request.method == "HEAD" else request.method]
        return to_starlette(await handler(original(request), request.path_params))

    return Route(path, answer, methods=list(handlers), name=name)


class ColdApp:
    """Routes by Starlette; a path or method it doesn't know raises Problem, like the hot handlers do."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._app = Starlette(
            routes=routes,
            exception_handlers={
                HTTPException: _raise_problem,
                Problem: _answer_problem,
                TollgateError: _answer_problem,
            },
        )
        self._app.router.redirect_slashes = False

    async def handle(self, request: Request) -> tuple[str, Response]:
        """The name of the route for the metrics, and its answer."""
        if request.path.endswith("\n"):  # which the end of Starlette's patterns would pass over
            raise Problem("not_found", _NO_SUCH_PATH)
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": request.path,
            "raw_path": request.path.encode("utf-8", "surrogateescape"),
            "root_path": "",
            "query_string": request.query.encode("latin-1", "replace"),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in request.headers.items()],
            "state": {},
            _ORIGINAL: request,
        }
        answer = _Answer(request.body or b"")
        await self._app(scope, answer.receive, answer.send)
        route = scope.get("route")
        return (route.name if isinstance(route, Route) else UNKNOWN), answer.response()


class _Answer:
    """Both ends of one in-memory ASGI call."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._status = 500
        self._headers: list[tuple[str, str]] = []
        self._parts: list[bytes] = []

    async def receive(self) -> Message:
        return {"type": "http.request", "body": self._body, "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = [
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in message["headers"]
                if name != b"content-length"  # the server adds it
            ]
        else:
            self._parts.append(message.get("body", b""))

    def response(self) -> Response:
        return Response(self._status, self._headers, b"".join(self._parts))


def original(request: StarletteRequest) -> Request:
    """The request as the shard's server read it: a body that was too large is told from one that is empty."""
    found: Request = request.scope[_ORIGINAL]
    return found


def to_starlette(response: Response) -> StarletteResponse:
    answer = StarletteResponse(response.body, response.status)
    for name, value in response.headers:
        answer.headers.append(name, value)
    return answer


def _answer_problem(_request: StarletteRequest, error: Exception) -> StarletteResponse:
    problem = known_problem(error)
    if problem is None:
        raise error
    return to_starlette(problem.response())


def _raise_problem(_request: StarletteRequest, error: Exception) -> StarletteResponse:
    """Starlette's own refusals (no such path, no such method) in the shape of all others."""
    if not isinstance(error, HTTPException):
        raise error
    return to_starlette(_problem_of(error.status_code, error.headers or {}).response())


def _problem_of(status: int, headers: Mapping[str, Any]) -> Problem:
    if status != 405:
        return Problem("not_found", _NO_SUCH_PATH)
    return not_allowed({method.strip() for method in headers.get("Allow", "").split(",")})


def not_allowed(methods: set[str]) -> Problem:
    listed = ", ".join(sorted(methods))
    return Problem("method_not_allowed", f"Allowed here: {listed}.", headers=[("allow", listed)])
