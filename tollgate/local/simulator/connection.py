"""The simulator's side of a connection: HTTP/1.1 on the event loop itself, parsed by llhttp.

A request is one method call when it is whole, and its answer one write: a call costs neither a task of the
connection's own nor a stream. One request a connection at a time; pipelined ones wait, and beyond a few
nothing more is read. Bounded: headers, body, the time for both, and the time to idle.
"""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from collections import deque
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Final, Protocol, cast
from urllib.parse import unquote

import httptools

from tollgate.local.simulator.requests import Refusal

HEADER_BYTES_MAX: Final = 32 * 1024
BODY_BYTES_MAX: Final = 1024 * 1024
READ_TIMEOUT_S: Final = 10.0  # for a request that has begun
IDLE_TIMEOUT_S: Final = 75.0
_PIPELINED_MAX: Final = 16
_SWEEP_INTERVAL_S: Final = 1.0
_JSON: Final = "application/json"
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_STATUS_LINE: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


@dataclass(slots=True)
class Request:
    """`number` is the handler's own: its place in the ledger, for those that have one."""

    method: str
    path: str
    query: str
    idempotency_key: str
    number: int = -1
    body: bytes = b""


class Handler(Protocol):
    """What a connection hands its requests to. Each is answered once, or its connection closed."""

    def received(self, request: Request) -> None:
        """Its head is there; the body is not yet."""
        ...

    def serve(self, request: Request, connection: Connection) -> None: ...

    def refuse(self, request: Request, refusal: Refusal, connection: Connection) -> None:
        """The body can't be had."""
        ...


class Connections:
    """All of one server, looked at once a second for whoever has overstayed."""

    def __init__(self) -> None:
        self._all: set[Connection] = set()
        self._loop = asyncio.get_running_loop()
        self.date = ""
        self._sweep()

    def add(self, connection: Connection) -> None:
        self._all.add(connection)

    def discard(self, connection: Connection) -> None:
        self._all.discard(connection)

    def close(self) -> None:
        self._sweeping.cancel()
        for connection in list(self._all):
            connection.close()

    def _sweep(self) -> None:
        self.date = f"Date: {formatdate(usegmt=True)}\r\n"
        for connection in list(self._all):
            connection.end_if_late(self._loop.time())
        self._sweeping = self._loop.call_later(_SWEEP_INTERVAL_S, self._sweep)


class Connection(asyncio.Protocol):
    """One client. The parser calls the `on_` methods from within `data_received`."""

    def __init__(self, handler: Handler, connections: Connections) -> None:
        self._handler = handler
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[tuple[Request, Refusal | None, bool]] = deque()
        self._under_way: Request | None = None
        self._keep_alive = True
        self._closing = False
        self._paused = False
        self._deadline = math.inf
        self._unfinished_bytes = 0  # since the parser last told of something
        self._may_write = asyncio.Event()
        self._may_write.set()
        # Of the request that is being read.
        self._url = b""
        self._key = ""
        self._expects = False
        self._header_bytes = 0
        self._body_bytes = 0
        self._parts: list[bytes] = []
        self._request: Request | None = None  # once its head is there
        self._refusal: Refusal | None = None
        self._keep_alive_after = True

    # For whoever answers.

    def answer(self, status: int, body: bytes, content_type: str = _JSON, retry_after: str = "") -> None:
        """The answer to the request under way, whole."""
        head = self._head(status, content_type, f"Content-Length: {len(body)}\r\n")
        if retry_after:
            head = f"{head[:-2]}Retry-After: {retry_after}\r\n\r\n"
        is_head = self._under_way is not None and self._under_way.method == "HEAD"
        self._write(head.encode() + (b"" if is_head else body))
        self._answered()

    def begin_answer(self, status: int) -> None:
        """Of a length that is not known yet; then `send` for each part, then `end_answer`."""
        self._write(self._head(status, _JSON, "Transfer-Encoding: chunked\r\n").encode())

    async def send(self, part: bytes) -> None:
        """Waits while the client does not read. Raises ConnectionError when it is gone."""
        if part:
            self._write(b"%x\r\n%b\r\n" % (len(part), part))
        await self._may_write.wait()
        if self._closing:
            raise ConnectionResetError("The client has gone away.")

    def end_answer(self) -> None:
        self._write(b"0\r\n\r\n")
        self._answered()

    def close(self) -> None:
        """Without a word."""
        self._closing = True
        self._may_write.set()
        self._transport.close()

    def reset(self) -> None:
        connection = self._transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._closing = True
        self._transport.abort()

    def end_if_late(self, now: float) -> None:
        if now < self._deadline or self._closing:
            return
        if self._request is None:
            self.close()
            return
        self._refusal = Refusal(408, "body_timeout", "The body did not arrive in time.")
        self._keep_alive_after = False
        self._whole(self._request)

    # asyncio calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        self._connections.add(self)
        self._deadline = self._loop.time() + READ_TIMEOUT_S

    def connection_lost(self, _error: Exception | None) -> None:
        self._closing = True
        self._waiting.clear()
        self._may_write.set()
        self._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        if self._closing or not self._keep_alive_after:
            return
        self._unfinished_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if self._keep_alive_after:  # what follows `Connection: close` is nobody's
                self._refuse_bytes(400)
            return
        if self._unfinished_bytes > HEADER_BYTES_MAX:
            self._refuse_bytes(431)

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    # The parser calls these.

    def on_message_begin(self) -> None:
        self._begin()
        self._deadline = self._loop.time() + READ_TIMEOUT_S

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if self._header_bytes <= HEADER_BYTES_MAX:
            self._unfinished_bytes = 0
        if name.lower() == b"idempotency-key":
            self._key = value.decode(errors="replace")
        elif name.lower() == b"expect" and value.lower() == b"100-continue":
            self._expects = True

    def on_headers_complete(self) -> None:
        self._unfinished_bytes = 0
        path, _, query = self._url.decode("latin-1").partition("?")
        if "%" in path:
            path = unquote(path)
        self._request = Request(self._parser.get_method().decode(), path, query, self._key)
        self._handler.received(self._request)
        if self._expects and self._under_way is None:
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, part: bytes) -> None:
        self._unfinished_bytes = 0
        self._body_bytes += len(part)
        if self._body_bytes <= BODY_BYTES_MAX:
            self._parts.append(part)
            return
        self._parts.clear()
        self._refusal = Refusal(413, "body_too_large", "A body is at most 1 MiB.")

    def on_message_complete(self) -> None:
        self._unfinished_bytes = 0
        self._keep_alive_after = self._parser.should_keep_alive()
        if self._request is not None:
            self._whole(self._request)

    # The connection's own life.

    def _begin(self) -> None:
        self._url = b""
        self._key = ""
        self._expects = False
        self._header_bytes = 0
        self._body_bytes = 0
        self._parts = []
        self._request = None
        self._refusal = None

    def _whole(self, request: Request) -> None:
        """The request that was read is served, or waits for the one before it."""
        request.body = b"".join(self._parts)
        self._waiting.append((request, self._refusal, self._keep_alive_after))
        self._request = None
        self._deadline = math.inf
        if self._under_way is None:
            self._next()
        elif len(self._waiting) > _PIPELINED_MAX:
            self._paused = True
            self._transport.pause_reading()

    def _next(self) -> None:
        self._under_way, refusal, self._keep_alive = self._waiting.popleft()
        if refusal is None:
            self._handler.serve(self._under_way, self)
        else:
            self._handler.refuse(self._under_way, refusal, self)

    def _answered(self) -> None:
        self._under_way = None
        if not self._keep_alive:
            self.close()
        elif self._waiting:
            self._loop.call_soon(self._go_on)
        elif self._request is None:
            self._deadline = self._loop.time() + IDLE_TIMEOUT_S

    def _go_on(self) -> None:
        """In a turn of its own, however many wait."""
        if self._closing:
            return
        if self._under_way is None and self._waiting:
            self._next()
        if self._paused and len(self._waiting) <= _PIPELINED_MAX:
            self._paused = False
            self._transport.resume_reading()

    def _refuse_bytes(self, status: int) -> None:
        """What can't be read any further. Nobody is told whose answer would come before this one."""
        if self._under_way is None and not self._waiting:
            self._keep_alive = False
            self._write(self._head(status, _JSON, "Content-Length: 0\r\n").encode())
        self.close()

    def _head(self, status: int, content_type: str, length: str) -> str:
        closing = "" if self._keep_alive else "Connection: close\r\n"
        date = self._connections.date
        return f"{_STATUS_LINE[status]}Content-Type: {content_type}\r\n{length}{closing}{date}\r\n"

    def _write(self, data: bytes) -> None:
        if not self._closing:
            self._transport.write(data)
