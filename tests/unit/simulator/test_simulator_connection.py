"""The simulator's side of a connection: requests in any pieces, in order, and nothing without a bound."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tollgate.local.simulator.connection import (
    BODY_BYTES_MAX,
    HEADER_BYTES_MAX,
    Connection,
    Connections,
    Request,
)
from tollgate.local.simulator.requests import Refusal

TIMEOUT_S = 10.0
POLL_S = 0.001


class Echo:
    """Answers with what it was asked, once it is let."""

    def __init__(self) -> None:
        self.served: list[Request] = []
        self.received_paths: list[str] = []
        self.under_way: list[tuple[Request, Connection]] = []
        self.holds = False

    def received(self, request: Request) -> None:
        self.received_paths.append(request.path)

    def serve(self, request: Request, connection: Connection) -> None:
        self.served.append(request)
        if self.holds:
            self.under_way.append((request, connection))
        else:
            connection.answer(200, f"{request.path} ".encode() + request.body)

    def refuse(self, request: Request, refusal: Refusal, connection: Connection) -> None:
        connection.answer(refusal.status, refusal.body())


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, bytes]:
        async with asyncio.timeout(TIMEOUT_S):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.split("content-length: ")[1].split("\r\n")[0])
            return int(head.split(" ")[1]), await self._reader.readexactly(length)

    async def line(self) -> bytes:
        async with asyncio.timeout(TIMEOUT_S):
            return await self._reader.readuntil(b"\r\n\r\n")

    async def rest(self) -> bytes:
        async with asyncio.timeout(TIMEOUT_S):
            return await self._reader.read()


class Served:
    def __init__(self) -> None:
        self.echo = Echo()
        self.connections = Connections()
        self.made: list[Connection] = []

    def make(self) -> Connection:
        self.made.append(Connection(self.echo, self.connections))
        return self.made[-1]

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while not holds():
                await asyncio.sleep(POLL_S)


@pytest.fixture
async def served() -> AsyncIterator[tuple[Served, Callable[[], Awaitable[Client]]]]:
    one = Served()
    server = await asyncio.get_running_loop().create_server(one.make, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    writers = []

    async def connect() -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(writer)
        return Client(reader, writer)

    try:
        yield one, connect
    finally:
        for writer in writers:
            writer.close()
        one.connections.close()
        server.close()


Fixture = tuple[Served, Callable[[], Awaitable[Client]]]


@asynccontextmanager
async def held(one: Served) -> AsyncIterator[None]:
    one.echo.holds = True
    yield
    one.echo.holds = False


def post(path: str, body: bytes, more: str = "") -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k1\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def test_a_request_in_single_bytes_is_one_request(served: Fixture) -> None:
    one, connect = served
    client = await connect()
    for byte in post("/v1/charges?reference=a%2Fb", b"body"):
        await client.send(bytes([byte]))
    assert await client.answer() == (200, b"/v1/charges body")
    (request,) = one.echo.served
    assert (request.method, request.query, request.idempotency_key) == ("POST", "reference=a%2Fb", "k1")


async def test_a_body_in_chunks_is_put_together(served: Fixture) -> None:
    _one, connect = served
    client = await connect()
    await client.send(
        b"POST /p HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
    assert await client.answer() == (200, b"/p abcde")


async def test_pipelined_requests_are_answered_one_after_another(served: Fixture) -> None:
    one, connect = served
    client = await connect()
    async with held(one):
        await client.send(b"".join(post(f"/{n}", b"x") for n in range(100)))
        await one.until(lambda: len(one.echo.received_paths) == 100)
        assert [request.path for request in one.echo.served] == ["/0"]
    request, connection = one.echo.under_way[0]
    connection.answer(200, request.path.encode())
    assert await client.answer() == (200, b"/0")
    assert [await client.answer() for _ in range(99)] == [(200, f"/{n} x".encode()) for n in range(1, 100)]
    await client.send(post("/after", b""))
    assert await client.answer() == (200, b"/after ")


async def test_a_request_that_says_close_is_the_last(served: Fixture) -> None:
    one, connect = served
    client = await connect()
    await client.send(post("/last", b"", "Connection: close\r\n") + post("/never", b""))
    answer = await client.rest()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"/last ")
    assert b"Connection: close\r\n" in answer
    assert [request.path for request in one.echo.served] == ["/last"]


async def test_what_is_no_http_is_refused_and_ends_the_connection(served: Fixture) -> None:
    one, connect = served
    client = await connect()
    await client.send(b"nonsense\r\n\r\n")
    assert (await client.rest()).startswith(b"HTTP/1.1 400 ")
    assert one.echo.served == []


async def test_headers_are_bounded_also_in_one_that_never_ends(served: Fixture) -> None:
    one, connect = served
    client = await connect()
    await client.send(b"GET / HTTP/1.1\r\nX: " + b"x" * (HEADER_BYTES_MAX + 1))
    assert (await client.rest()).startswith(b"HTTP/1.1 431 ")
    assert one.echo.served == []


async def test_a_body_that_is_too_large_is_read_to_its_end_and_refused(served: Fixture) -> None:
    one, connect = served
    client = await connect()
    await client.send(post("/large", b"x" * (BODY_BYTES_MAX + 1)))
    assert (await client.answer())[0] == 413
    await client.send(post("/small", b"x"))
    assert await client.answer() == (200, b"/small x")
    assert [request.path for request in one.echo.served] == ["/small"]


async def test_a_body_that_does_not_come_is_refused_in_the_end(served: Fixture) -> None:
    one, connect = served
    client = await connect()
    await client.send(post("/half", b"whole")[:-1])
    await one.until(lambda: one.echo.received_paths == ["/half"])
    one.made[0].end_if_late(math.inf)
    assert (await client.rest()).startswith(b"HTTP/1.1 408 ")
    assert one.echo.served == []


async def test_an_idle_connection_is_closed_and_a_busy_one_is_not(served: Fixture) -> None:
    one, connect = served
    client = await connect()
    async with held(one):
        await client.send(post("/busy", b""))
        await one.until(lambda: bool(one.echo.under_way))
        one.made[0].end_if_late(1e12)
    one.echo.under_way[0][1].answer(200, b"after all")
    assert await client.answer() == (200, b"after all")
    one.made[0].end_if_late(1e12)
    assert await client.rest() == b""


async def test_a_client_that_asks_first_is_told_to_send(served: Fixture) -> None:
    _one, connect = served
    client = await connect()
    request = post("/asked", b"x", "Expect: 100-continue\r\n")
    await client.send(request[:-1])
    assert await client.line() == b"HTTP/1.1 100 Continue\r\n\r\n"
    await client.send(request[-1:])
    assert await client.answer() == (200, b"/asked x")
