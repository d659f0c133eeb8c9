"""HTTP/1.1 on the event loop itself: llhttp parses, a hot request costs no task, future or other thread.

Granian hands every request from its own thread to Python's and back; where the cores are shared with nginx
those two hops queue behind whoever holds the GIL (docs/decisions/0008). Here a request is read, admitted and
put into the ring in one turn of the loop, and answered in the turn that learns that it is durable.

Bounded per connection: 32 KiB of headers, 64 KiB of body, one request under way and a few pipelined ones
waiting (then nothing more is read), time to send headers and body, time to idle, time to read what was
answered. Over all: connections, and what they sent and nobody has begun with (`connection_bounds`). Answers
keep the order of their requests.
"""

from __future__ import annotations

import asyncio
from collections import deque
from email.utils import formatdate
from http import HTTPStatus
from typing import Final, cast
from urllib.parse import unquote

import httptools
import structlog

from gateway.http.address import address_taken
from gateway.http.body import BODY_TIMEOUT_S, DISCARDED_BYTES_MAX, foreign_coding, too_slow
from gateway.http.connection_bounds import ConnectionBounds
from gateway.http.message import Request, Response
from gateway.http.parsed_headers import ParsedHeaders
from gateway.http.payments import BODY_BYTES_MAX
from gateway.http.problems import Problem
from gateway.http.routes import OVERLOADED, HttpApp

HEADER_BYTES_MAX: Final = 32 * 1024
HEADER_TIMEOUT_S: Final = 10.0
IDLE_TIMEOUT_S: Final = 75.0  # above nginx's, so that it is nginx that closes an idle connection
SEND_TIMEOUT_S: Final = 10.0
LINGER_S: Final = 2.0  # after the last answer, for a client that is still sending
SURPLUS_LIFE_S: Final = 2.0  # of a connection beyond those that are served: one question and its answer
PIPELINED_MAX: Final = 16
UNSENT_BYTES_MAX: Final = 16 * 1024
_REQUEST_BYTES: Final = 1024  # roughly what a waiting request takes beside its body
_SWEEP_INTERVAL_S: Final = 1.0
_STOP_POLL_S: Final = 0.01
_BACKLOG: Final = 4096  # a full queue drops newcomers, who try again after a second
_CLOSE: Final = ("connection", "close")
_NEVER: Final = float("inf")
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUS_LINE: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}

log = structlog.get_logger()


class Shared:
    """What the connections of one server have in common."""

    def __init__(self, app: HttpApp, loop: asyncio.AbstractEventLoop, bounds: ConnectionBounds) -> None:
        self.app = app
        self.loop = loop
        self.bounds = bounds
        self.held_bytes = 0
        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.draining = False
        self.date = ""
        self.now = loop.time()  # as of the last sweep, which is as exact as deadlines are looked at
        self._sweeping: asyncio.TimerHandle | None = None

    def sweep(self) -> None:
        """Once a second: the date for the answers, and whoever has overstayed."""
        self.date = f"date: {formatdate(usegmt=True)}\r\n"
        self.now = self.loop.time()
        for connection in list(self.connections):
            connection.end_if_late(self.now - _SWEEP_INTERVAL_S)
        self._sweeping = self.loop.call_later(_SWEEP_INTERVAL_S, self.sweep)

    def close(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()


class Connection(asyncio.Protocol):
    """One client. The parser calls the `on_` methods from within `data_received`."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._transport: asyncio.Transport
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[tuple[Request, bool]] = deque()
        self._busy = False
        self._head = False  # the request under way is a HEAD
        self._keep_alive = True
        self._closing = False
        self._reading_paused = False
        self._write_paused = False
        self._deadline = 0.0
        self._refusal: Problem | None = None  # nothing after it is read
        self._half_closed = False
        self._said_last = False
        self._in_message = False
        self._in_body = False
        self._advanced = False
        self._unfinished_bytes = 0
        self._advancing = False
        self._is_surplus = False
        self._held_bytes = 0
        self._ends_at = _NEVER  # whatever it is doing then
        self._begin_message()

    # asyncio calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._shared.connections.add(self)
        self._transport.set_write_buffer_limits(high=UNSENT_BYTES_MAX)
        self._deadline = self._shared.now + HEADER_TIMEOUT_S
        surplus = len(self._shared.connections) - self._shared.bounds.connections_max
        if surplus > 0:
            self._is_surplus = True
            self._ends_at = self._shared.now + SURPLUS_LIFE_S
            if surplus > self._shared.bounds.ops_reserve:
                self.abort()

    def connection_lost(self, _error: Exception | None) -> None:
        self._closing = True
        self._waiting.clear()
        self._body = b""
        self._account()
        self._shared.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        if self._is_over or self._said_last:
            return
        self._advanced = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(Problem("invalid_request", "Only HTTP/1.1 is spoken here, without upgrades."))
        except httptools.HttpParserError:
            if not self._said_last:  # what follows `Connection: close` is nobody's
                self._refuse(Problem("invalid_request", "The request is not well-formed HTTP."))
        # The parser keeps a header to itself until it is whole, however long it gets.
        self._unfinished_bytes = 0 if self._advanced else self._unfinished_bytes + len(data)
        if self._unfinished_bytes > HEADER_BYTES_MAX:
            self._refuse_headers()
        if (self._in_body or self._waiting or self._held_bytes) and not self._closing:
            self._account()
            if self._shared.held_bytes > self._shared.bounds.held_bytes_max:
                self._refuse_more()

    def eof_received(self) -> bool:
        """A client may end its side and still wait for the answer: the connection stays as long as that."""
        self._half_closed = True
        return self._busy or bool(self._waiting)

    def pause_writing(self) -> None:
        self._write_paused = True
        self._ends_at = min(self._ends_at, self._shared.now + SEND_TIMEOUT_S)

    def resume_writing(self) -> None:
        self._write_paused = False
        if not (self._is_surplus or self._closing):
            self._ends_at = _NEVER
        self._next()

    # The parser calls these.

    def on_message_begin(self) -> None:
        self._begin_message()
        self._in_message = True
        self._deadline = self._shared.now + HEADER_TIMEOUT_S

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count_header_bytes(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_body:  # after the body come trailers, which are no headers (RFC 9110, 6.5.1)
            self._headers.add(name, value)
        self._advanced = True
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > HEADER_BYTES_MAX:
            self._refuse_headers()

    def on_headers_complete(self) -> None:
        self._in_body = self._advanced = True
        self._deadline = self._shared.now + BODY_TIMEOUT_S
        if (self._headers.get("expect") or "").lower() == "100-continue" and not self._busy:
            self._transport.write(_CONTINUE)
        if self._headers.get("transfer-encoding") and (problem := foreign_coding(self._headers)):
            self._refuse(problem)

    def on_body(self, body: bytes) -> None:
        self._advanced = True
        self._body_bytes += len(body)
        if self._body_bytes <= BODY_BYTES_MAX:
            self._body += body
        elif self._body_bytes > DISCARDED_BYTES_MAX:
            self._refuse(Problem("payload_too_large", f"A body has at most {BODY_BYTES_MAX} bytes."))

    def on_message_complete(self) -> None:
        if self._is_over:
            return
        self._in_message = self._in_body = False
        self._advanced = True
        path, _, query = self._url.decode("latin-1").partition("?")
        if "%" in path:
            path = unquote(path, errors="surrogateescape")
        body = None if self._body_bytes > BODY_BYTES_MAX else self._body
        request = Request(self._parser.get_method().decode("ascii"), path, query, self._headers, body)
        self._body = b""  # whoever holds the request holds it
        keep_alive = self._parser.should_keep_alive()
        self._said_last = not keep_alive
        self._deadline = _NEVER
        if not (self._busy or self._waiting or self._write_paused):
            self._serve(request, keep_alive)
            return
        self._waiting.append((request, keep_alive))
        if len(self._waiting) > PIPELINED_MAX:
            self._transport.pause_reading()
            self._reading_paused = True
        if not self._busy:
            self._next()

    # The connection's own life.

    def end_if_late(self, now: float) -> None:
        if now >= self._ends_at:
            self.abort()
            return
        if now < self._deadline or self._busy or self._is_over:
            return
        if self._in_body:
            self._refuse(too_slow())
        else:
            self._close()

    def drain(self) -> None:
        """Ends an idle connection now, a busy one after what it is waiting for."""
        if not self._busy and not self._waiting:
            self._close()

    def abort(self) -> None:
        self._closing = True
        self._transport.abort()

    def _begin_message(self) -> None:
        self._url = b""
        self._headers = ParsedHeaders()
        self._header_bytes = 0
        self._body = b""
        self._body_bytes = 0
        self._in_body = False

    def _count_header_bytes(self, count: int) -> None:
        self._advanced = True
        self._header_bytes += count
        if self._header_bytes > HEADER_BYTES_MAX:
            self._refuse_headers()

    def _next(self) -> None:
        self._advancing = True
        while self._waiting and not (self._busy or self._write_paused or self._closing):
            self._serve(*self._waiting.popleft())
        self._advancing = False
        if self._refusal is not None and not (self._busy or self._waiting or self._closing):
            self._transport.write(encode(self._refusal.response(), self._shared.date, close=True))
            self._linger()
        elif self._reading_paused and len(self._waiting) <= PIPELINED_MAX // 2 and not self._is_over:
            self._reading_paused = False
            self._transport.resume_reading()

    def _serve(self, request: Request, keep_alive: bool) -> None:
        self._keep_alive = keep_alive
        self._busy = True
        self._head = request.method == "HEAD"
        if self._is_surplus:
            self._keep_alive = False
            if not self._shared.app.is_ops(request.path):
                self._respond(self._shared.app.refusal(request, "connections"))
                return
        if not self._shared.app.start(request, self._respond):
            task = self._shared.loop.create_task(self._respond_cold(request))
            self._shared.tasks.add(task)
            task.add_done_callback(self._shared.tasks.discard)

    async def _respond_cold(self, request: Request) -> None:
        self._respond(await self._shared.app.handle_cold(request))

    def _respond(self, response: Response) -> None:
        """The answer to the one request under way, in the loop's turn that has it."""
        self._busy = False
        if self._held_bytes:
            self._account()
        if self._closing:
            return
        more = bool(self._waiting) or self._refusal is not None
        last = not more and (not self._keep_alive or self._half_closed or self._shared.draining)
        self._transport.write(encode(response, self._shared.date, close=last, head=self._head))
        if last:
            self._linger()
        elif more and not self._advancing:  # else the loop in _next goes on: no recursion, however many wait
            self._next()
        elif not self._in_message:
            self._deadline = self._shared.now + IDLE_TIMEOUT_S

    def _account(self) -> None:
        """What this connection sent and nobody has begun with is counted over all of them."""
        waiting = sum(len(request.body or b"") + _REQUEST_BYTES for request, _ in self._waiting)
        held = waiting + len(self._body)
        self._shared.held_bytes += held - self._held_bytes
        self._held_bytes = held

    def _refuse_more(self) -> None:
        self._shared.app.count_refusal("held_bytes")
        self._waiting.clear()
        self._body = b""
        self._account()
        self._refuse(OVERLOADED)

    def _refuse_headers(self) -> None:
        detail = f"The request line and its headers have at most {HEADER_BYTES_MAX} bytes."
        self._refuse(Problem("headers_too_large", detail))

    def _refuse(self, problem: Problem) -> None:
        """Answers what can't be read any further, after all that came before it, and closes."""
        if not self._is_over:
            self._refusal = problem
            self._next()

    @property
    def _is_over(self) -> bool:
        return self._closing or self._refusal is not None

    def _linger(self) -> None:
        """Ends this side and reads on: a close on unread bytes resets, which can take the answer away from a
        client that is still sending (RFC 9112, 9.6)."""
        if self._half_closed or self._transport.is_closing():
            self._close()
            return
        self._closing = True
        self._ends_at = min(self._ends_at, self._shared.loop.time() + LINGER_S)
        self._transport.write_eof()
        self._transport.resume_reading()

    def _close(self) -> None:
        self._closing = True
        self._ends_at = min(self._ends_at, self._shared.now + SEND_TIMEOUT_S)
        self._transport.close()


def encode(response: Response, date: str, *, close: bool, head: bool = False) -> bytes:
    """`head`: the body was taken away, and its length is not told as nought (RFC 9110, 8.6)."""
    status, headers, body = response
    lines = [_STATUS_LINE[status], *[f"{name}: {value}\r\n" for name, value in headers]]
    if not head and status not in (204, 304):
        lines.append(f"content-length: {len(body)}\r\n")
    if close and _CLOSE not in headers:
        lines.append("connection: close\r\n")
    lines.append(date)
    lines.append("\r\n")
    return "".join(lines).encode("latin-1") + body


class HttptoolsServer:
    """Serves on `listen` (host:port), on the running loop."""

    def __init__(self, app: HttpApp, listen: str, bounds: ConnectionBounds) -> None:
        host, _, port = listen.rpartition(":")
        self._address = (host, int(port))
        self._shared = Shared(app, asyncio.get_running_loop(), bounds)
        self._server: asyncio.Server | None = None

    async def start(self, timeout_s: float) -> None:
        loop = self._shared.loop
        try:
            async with asyncio.timeout(timeout_s):
                self._server = await loop.create_server(
                    lambda: Connection(self._shared), *self._address, backlog=_BACKLOG
                )
        except OSError as error:
            raise address_taken(self._address, error) from error
        self._shared.sweep()

    async def stop(self, timeout_s: float) -> bool:
        if self._server is None:
            return True
        self._server.close()
        self._shared.draining = True
        for connection in list(self._shared.connections):
            connection.drain()
        deadline = self._shared.now + timeout_s
        while self._shared.connections and self._shared.now < deadline:
            await asyncio.sleep(_STOP_POLL_S)
        self._shared.close()
        for connection in list(self._shared.connections):
            connection.abort()
        for task in self._shared.tasks:
            task.cancel()
        return not self._shared.connections
