"""HTTP/1.1 to one PSP over kept connections, for an adapter that needs nothing of a client but an exchange.

A request goes out once, on one connection, in one write, and never again by itself. Its answer is whole or
none: read to the length or last chunk that it announces itself; one that ends with its connection is none.
`NeverConnected` says that nothing was sent. A call costs a third of aiohttp's (docs/decisions/0037).

Bounded: so many connections at a time, so long a wait for one, so long an exchange, so long an answer. A
connection is kept only after an exchange that went by the book, and not longer than most servers keep it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast
from urllib.parse import quote, urlsplit

import httptools

from processor.psp.answer import ANSWER_BYTES_MAX

_IDLE_MAX_S: Final = 15.0  # as aiohttp has it
_ANSWER_AND_HEAD_MAX: Final = 2 * ANSWER_BYTES_MAX
_PATH_SAFE: Final = "/%?&=;:,@+~!$'()*"


class NeverConnected(Exception):
    """Nothing was sent. The text names what failed, in a word."""


class NoWholeAnswer(Exception):
    """It may have been executed. The text names what failed, in a word."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """`body` is empty when it was longer than any answer; `retry_after` as it was sent."""

    status: int
    body: bytes
    retry_after: str | None


class Exchanges:
    """Build it inside a running event loop. `connect_s` bounds the wait for a connection, a free place
    included; `timeout_s` the whole exchange.
    """

    def __init__(self, url: str, timeout_s: float, connect_s: float, connections_max: int) -> None:
        parts = urlsplit(url)
        self._tls = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._tls else 80)
        self._base = parts.path.rstrip("/")
        self._head_end = f" HTTP/1.1\r\nHost: {parts.netloc.rpartition('@')[2]}\r\n"
        self._timeout_s = timeout_s
        self._connect_s = connect_s
        self._places = asyncio.Semaphore(connections_max)
        self._idle: list[_Connection] = []  # the last used last
        self._loop = asyncio.get_running_loop()

    async def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> HttpAnswer:
        """Raises NeverConnected and NoWholeAnswer, and ValueError for a header that is none."""
        head = self._head(method, path, headers, len(body))
        deadline = self._loop.time() + self._timeout_s
        await self._take_place()
        try:
            connection = self._kept() or await self._connect(deadline)
            try:
                return await connection.exchange(head + body, deadline)
            finally:
                self._keep(connection)
        finally:
            self._places.release()

    async def close(self) -> None:
        while self._idle:
            self._idle.pop().abort()

    async def _take_place(self) -> None:
        if not self._places.locked():  # the usual case, without a timer
            await self._places.acquire()
            return
        try:
            async with asyncio.timeout(self._connect_s):
                await self._places.acquire()
        except TimeoutError as error:
            raise NeverConnected("TimeoutError") from error

    def _keep(self, connection: _Connection) -> None:
        """Of no use is one whose exchange was broken off, cancelled, or is to be its last."""
        if connection.is_reusable:
            connection.idle_since = self._loop.time()
            self._idle.append(connection)
        else:
            connection.abort()

    def _kept(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable and self._loop.time() - connection.idle_since < _IDLE_MAX_S:
                return connection
            connection.abort()
        return None

    async def _connect(self, deadline: float) -> _Connection:
        try:
            async with asyncio.timeout(min(self._connect_s, deadline - self._loop.time())):
                _transport, connection = await self._loop.create_connection(
                    _Connection, self._host, self._port, ssl=self._tls or None
                )
        except (OSError, TimeoutError) as error:
            raise NeverConnected(type(error).__name__) from error
        return connection

    def _head(self, method: str, path: str, headers: Mapping[str, str], length: int) -> bytes:
        path = self._base + path
        if not path.isascii() or not path.isprintable() or " " in path or "#" in path:
            path = quote(path, safe=_PATH_SAFE)
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        if lines.count("\r") != len(headers) or lines.count("\n") != len(headers):
            raise ValueError("a header's value holds the end of a line")
        return f"{method} {path}{self._head_end}{lines}Content-Length: {length}\r\n\r\n".encode("latin-1")


class _Connection(asyncio.Protocol):
    """One exchange at a time; httptools calls the `on_` methods while it is fed."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self.is_reusable = False
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Future[HttpAnswer] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._bytes = 0  # of the answer so far, in all
        self._retry_after: str | None = None

    async def exchange(self, request: bytes, deadline: float) -> HttpAnswer:
        """Raises NoWholeAnswer."""
        self._waiting = self._loop.create_future()
        self.is_reusable = False
        timer = self._loop.call_at(deadline, self._fail, "TimeoutError")
        try:
            self._transport.write(request)
            return await self._waiting
        finally:
            timer.cancel()
            self._waiting = None

    def abort(self) -> None:
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        if self._waiting is None or self._waiting.done():
            self._refuse()
            return
        self._bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(type(error).__name__)
            return
        if self._bytes > _ANSWER_AND_HEAD_MAX:
            self._fail("AnswerTooLong")

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_reusable = False
        self._fail(type(exc).__name__ if exc else "ServerDisconnected")

    def on_message_begin(self) -> None:
        """Also after interim answers, and after the answer: that one is refused when it is whole, or
        by what comes next.
        """
        self.is_reusable = False
        self._body.clear()
        self._body_bytes = 0
        self._retry_after = None

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after":
            self._retry_after = value.decode("latin-1")

    def on_body(self, part: bytes) -> None:
        self._body_bytes += len(part)
        if self._body_bytes > ANSWER_BYTES_MAX:
            self._answer(b"")
        else:
            self._body.append(part)

    def on_message_complete(self) -> None:
        if 100 <= self._parser.get_status_code() < 200:
            return  # not yet the answer
        if self._waiting is None or self._waiting.done():
            self._refuse()
            return
        self.is_reusable = self._parser.should_keep_alive()
        self._bytes = 0
        self._answer(b"".join(self._body))

    def _refuse(self) -> None:
        """Bytes that nobody asked for: what comes next could be taken for another's answer."""
        self.is_reusable = False
        self.abort()

    def _answer(self, body: bytes) -> None:
        if self._waiting is not None and not self._waiting.done():
            status = self._parser.get_status_code()
            self._waiting.set_result(HttpAnswer(status, body, self._retry_after))

    def _fail(self, what: str) -> None:
        self.is_reusable = False
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(NoWholeAnswer(what))
