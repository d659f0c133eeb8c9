"""The app under ASGI 3 (https://asgi.readthedocs.io/en/latest/specs/www.html)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from gateway.http.body import BODY_TIMEOUT_S, bounded, foreign_coding, has_body, too_slow
from gateway.http.message import Request, Response
from gateway.http.routes import HttpApp

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class AsgiApp:
    def __init__(self, app: HttpApp) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError("only HTTP is served here")
        headers = AsgiHeaders(scope["headers"])
        body: bytes | None = b""
        if has_body(headers):
            problem = foreign_coding(headers)
            if problem is not None:
                await _send(send, problem.response())
                return
            try:
                async with asyncio.timeout(BODY_TIMEOUT_S):
                    body = await bounded(_chunks(receive))
            except TimeoutError:
                await _send(send, too_slow().response())
                return
            except ConnectionError:
                return
        query = scope["query_string"].decode("latin-1")
        request = Request(scope["method"], scope["path"], query, headers, body)
        await _send(send, await self._app.handle(request))


class AsgiHeaders:
    """Header bytes are Latin-1; servers hand names over in lower case."""

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._raw = list(raw)

    def get(self, name: str) -> str | None:
        wanted = name.encode()
        return next((value.decode("latin-1") for key, value in self._raw if key == wanted), None)

    def get_all(self, name: str) -> list[str]:
        wanted = name.encode()
        return [value.decode("latin-1") for key, value in self._raw if key == wanted]

    def items(self) -> list[tuple[str, str]]:
        return [(key.decode("latin-1"), value.decode("latin-1")) for key, value in self._raw]


async def _chunks(receive: Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError
        yield message.get("body", b"")
        more = message.get("more_body", False)


async def _send(send: Send, response: Response) -> None:
    headers = [(name.encode(), value.encode("latin-1")) for name, value in response.headers]
    if response.status not in (204, 304):
        headers.append((b"content-length", str(len(response.body)).encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})
