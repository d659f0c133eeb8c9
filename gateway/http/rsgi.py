"""The app under RSGI, Granian's own interface.

Specification: https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from gateway.http.body import BODY_TIMEOUT_S, bounded, foreign_coding, has_body, is_known_small, too_slow
from gateway.http.message import Headers, Request, Response
from gateway.http.routes import HttpApp


class Scope(Protocol):
    """What is used here of RSGI's scope."""

    method: str
    path: str
    query_string: str

    @property
    def headers(self) -> Headers: ...


class HttpProtocol(Protocol):
    """What is used here of RSGI's protocol: the body's chunks and the answers."""

    async def __call__(self) -> bytes: ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    def response_empty(self, status: int, headers: list[tuple[str, str]]) -> None: ...

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None: ...


class RsgiApp:
    def __init__(self, app: HttpApp) -> None:
        self._app = app

    async def __rsgi__(self, scope: Scope, protocol: HttpProtocol) -> None:
        headers = scope.headers
        body: bytes | None = b""
        if has_body(headers):
            problem = foreign_coding(headers)
            if problem is not None:
                _send(protocol, problem.response())
                return
            try:
                async with asyncio.timeout(BODY_TIMEOUT_S):
                    body = await protocol() if is_known_small(headers) else await bounded(protocol)
            except TimeoutError:
                _send(protocol, too_slow().response())
                return
        request = Request(scope.method, scope.path, scope.query_string, headers, body)
        _send(protocol, await self._app.handle(request))


def _send(protocol: HttpProtocol, response: Response) -> None:
    if response.body:
        protocol.response_bytes(*response)
    else:
        protocol.response_empty(response.status, response.headers)
