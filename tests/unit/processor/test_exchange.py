"""One exchange over a kept connection: an answer is whole or none, and nobody gets another's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.psp.answer import ANSWER_BYTES_MAX
from processor.psp.exchange import Exchanges, HttpAnswer, NeverConnected, NoWholeAnswer

WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = (
    b"HTTP/1.1 402 No\r\nTransfer-Encoding: chunked\r\nRetry-After: 7\r\n\r\n"
    b"1\r\n{\r\n1;x=y\r\n}\r\n0\r\n\r\n"
)

Script = list[list[bytes]]  # of each request: what is written, piece by piece; b"" ends the connection


class ScriptedServer:
    """Answers request after request by the script, whatever is asked. Keeps what it heard by connection."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.heard: list[list[bytes]] = []
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        heard: list[bytes] = []
        self.heard.append(heard)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r")[0])
                heard.append(head + await reader.readexactly(length))
                for piece in self.script.pop(0):
                    if not piece:
                        writer.close()
                        return
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
        except (asyncio.IncompleteReadError, ConnectionError):
            return


Open = Callable[[ScriptedServer], Awaitable[Exchanges]]


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    servers: list[ScriptedServer] = []
    clients: list[Exchanges] = []

    async def start(server: ScriptedServer) -> Exchanges:
        url = await server.__aenter__()
        servers.append(server)
        clients.append(Exchanges(url + "/base/", timeout_s=5.0, connect_s=2.0, connections_max=2))
        return clients[-1]

    yield start
    for client in clients:
        await client.close()
    for server in servers:
        await server.__aexit__()


async def asked(client: Exchanges, path: str = "/x") -> HttpAnswer:
    return await client.ask("POST", path, {"Key": "k"}, b"body")


async def test_a_request_is_one_request_and_its_connection_serves_the_next(opened: Open) -> None:
    server = ScriptedServer([[WHOLE], [CHUNKED], [WHOLE]])
    client = await opened(server)
    assert await asked(client) == HttpAnswer(200, b"{}", None)
    assert await asked(client) == HttpAnswer(402, b"{}", "7")
    assert await asked(client) == HttpAnswer(200, b"{}", None)  # and nothing of the one before
    ((first, _, _),) = server.heard
    lines, _, body = first.partition(b"\r\n\r\n")
    assert lines.startswith(b"POST /base/x HTTP/1.1\r\nHost: 127.0.0.1:")
    assert lines.endswith(b"\r\nKey: k\r\nContent-Length: 4")
    assert body == b"body"


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 100 Continue\r\n\r\n", WHOLE],
        [b"HTTP/1.1 103 Early Hints\r\nRetry-After: 9\r\n\r\n" + WHOLE],
        [WHOLE[:1], WHOLE[1:20], WHOLE[20:-1], WHOLE[-1:]],
        [bytes([byte]) for byte in WHOLE],
    ],
)
async def test_an_answer_in_pieces_or_after_interim_ones_is_the_answer(
    opened: Open, pieces: list[bytes]
) -> None:
    client = await opened(ScriptedServer([pieces]))
    assert await asked(client) == HttpAnswer(200, b"{}", None)


@pytest.mark.parametrize(
    "pieces",
    [
        [b""],
        [WHOLE[:-1], b""],
        [CHUNKED[:-2], b""],
        [b"HTTP/1.1 200 OK\r\n\r\n{}", b""],  # its end would be the connection's: also that of a broken one
        [b"HTTP/1.0 200 OK\r\n\r\n{}", b""],
        [b"garbage\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} "],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}"],
        [b"HTTP/1.1 200 OK\r\nX: " + b"x" * 3 * ANSWER_BYTES_MAX],
        [b"HTTP/1.1 100 Continue\r\n\r\n", b""],
    ],
)
async def test_less_than_a_whole_answer_is_none(opened: Open, pieces: list[bytes]) -> None:
    server = ScriptedServer([pieces, [WHOLE]])
    client = await opened(server)
    with pytest.raises(NoWholeAnswer):
        await asked(client)
    assert await asked(client) == HttpAnswer(200, b"{}", None)
    assert [len(heard) for heard in server.heard] == [1, 1]  # each sent once, on a connection of its own


async def test_an_answer_longer_than_any_is_told_without_its_body(opened: Open) -> None:
    long = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (ANSWER_BYTES_MAX + 1)
    server = ScriptedServer([[long, b" " * ANSWER_BYTES_MAX, b" "], [WHOLE]])
    client = await opened(server)
    assert await asked(client) == HttpAnswer(200, b"", None)
    assert await asked(client) == HttpAnswer(200, b"{}", None)
    assert len(server.heard) == 2


@pytest.mark.parametrize("more", [WHOLE, b"HTTP/1.1", b"\0"])
async def test_what_follows_an_answer_is_nobody_s(opened: Open, more: bytes) -> None:
    """On the same connection it would be taken for the answer to the next request."""
    server = ScriptedServer([[WHOLE + more], [CHUNKED]])
    client = await opened(server)
    try:
        assert await asked(client) == HttpAnswer(200, b"{}", None)
    except NoWholeAnswer:
        assert more == b"\0"  # not HTTP, and told as such
    assert await asked(client) == HttpAnswer(402, b"{}", "7")
    assert len(server.heard) == 2


async def test_what_comes_while_nobody_asks_ends_the_connection(opened: Open) -> None:
    server = ScriptedServer([[WHOLE], [CHUNKED]])
    client = await opened(server)
    await asked(client)
    server._writers[0].write(WHOLE)
    async with asyncio.timeout(10):
        while any(connection.is_reusable for connection in client._idle):
            await asyncio.sleep(0)
    assert await asked(client) == HttpAnswer(402, b"{}", "7")
    assert len(server.heard) == 2


@pytest.mark.parametrize("last", [b"Connection: close\r\n", b"connection: Close\r\n"])
async def test_a_connection_that_is_to_be_closed_is_not_used_again(opened: Open, last: bytes) -> None:
    server = ScriptedServer([[WHOLE.replace(b"Content", last + b"Content")], [WHOLE]])
    client = await opened(server)
    assert await asked(client) == await asked(client)
    assert len(server.heard) == 2


async def test_no_more_connections_than_allowed_and_a_wait_for_one_is_bounded() -> None:
    server = ScriptedServer([[], [], []])  # never answers
    async with server as url:
        client = Exchanges(url, timeout_s=0.2, connect_s=0.05, connections_max=2)
        answers = await asyncio.gather(*(asked(client) for _ in range(3)), return_exceptions=True)
        assert sorted(type(answer).__name__ for answer in answers) == [
            "NeverConnected",
            "NoWholeAnswer",
            "NoWholeAnswer",
        ]
        assert len(server.heard) == 2
        await client.close()


async def test_who_is_cancelled_leaves_no_answer_to_the_next(opened: Open) -> None:
    server = ScriptedServer([[], [CHUNKED]])
    client = await opened(server)
    task = asyncio.create_task(asked(client))
    async with asyncio.timeout(10):
        while not (server.heard and server.heard[0]):
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asked(client) == HttpAnswer(402, b"{}", "7")
    assert len(server.heard) == 2


async def test_where_nothing_listens_nothing_is_sent() -> None:
    async with ScriptedServer([]) as url:
        pass
    client = Exchanges(url, timeout_s=2.0, connect_s=1.0, connections_max=1)
    for _ in range(2):  # and its place is free again
        with pytest.raises(NeverConnected, match="ConnectionRefusedError"):
            await asked(client)


@given(
    path=st.text(st.characters(exclude_categories=["Cs"]), max_size=20), value=st.text("a\r\n :", max_size=6)
)
def test_nothing_that_is_handed_in_begins_a_line_of_its_own(path: str, value: str) -> None:
    async def head_of() -> bytes:
        return Exchanges("http://psp.example:81", 1.0, 1.0, 1)._head("GET", "/" + path, {"Key": value}, 0)

    try:
        head = asyncio.run(head_of())
    except ValueError:
        assert "\r" in value or "\n" in value
        return
    first, host, key, length, end, rest = head.split(b"\r\n")
    assert first.count(b" ") == 2
    assert (host, length, end, rest) == (b"Host: psp.example:81", b"Content-Length: 0", b"", b"")
    assert key == f"Key: {value}".encode()
