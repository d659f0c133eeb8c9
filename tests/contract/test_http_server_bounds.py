"""Slow, greedy and half-gone clients, over real sockets: what each costs is bounded; others are served."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import get_args

import pytest

from gateway.http import httptools_server
from gateway.http.connection_bounds import ConnectionBounds
from gateway.http.server import ServerName
from tests.fixtures.served import Served, head
from tests.fixtures.shard import API_KEY, BODY, POLL_S, HeldDisk, PromptDisk, in_process_shard

ID = "order-0001"
BEARER = {"Authorization": f"Bearer {API_KEY}"}
PAYMENT = json.dumps(BODY).encode()
HELD_MAX = 1024 * 1024
CONNECTIONS_MAX = 4
OPS_RESERVE = 2
DEADLINE_S = 10.0


def post(checkout_id: str, body: bytes = PAYMENT, length: int | None = None, *, keep: bool = False) -> bytes:
    headers = {
        **BEARER,
        "Content-Type": "application/json",
        "X-PAYMENT-CHECKOUT-ID": checkout_id,
        "Content-Length": str(len(body) if length is None else length),
    }
    sent = head("POST", "/v1/payments", **headers) + body
    return sent.replace(b"Connection: close\r\n", b"") if keep else sent


def get(path: str, *, keep: bool = False) -> bytes:
    sent = head("GET", path, **BEARER)
    return sent.replace(b"Connection: close\r\n", b"") if keep else sent


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(POLL_S)


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    """Until the server ends the connection, in order or by a reset."""
    received = b""
    try:
        while chunk := await asyncio.wait_for(reader.read(65536), DEADLINE_S):
            received += chunk
    except ConnectionResetError:
        pass
    return received


def statuses(received: bytes) -> list[int]:
    return [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]]


async def end(*writers: asyncio.StreamWriter) -> None:
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(0)


def connections(served: Served) -> int:
    assert isinstance(served.server, httptools_server.HttptoolsServer)
    return len(served.server._shared.connections)


@pytest.fixture(params=get_args(ServerName))
async def any_served(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Served]:
    served = Served(request.param, in_process_shard(tmp_path, flusher=HeldDisk))
    await served.server.start(5)
    yield served
    await served.server.stop(1)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    bounds = ConnectionBounds(CONNECTIONS_MAX, OPS_RESERVE, HELD_MAX)
    served = Served("httptools", in_process_shard(tmp_path, flusher=PromptDisk), bounds)
    await served.server.start(5)
    yield served
    await served.server.stop(1)


def disk(served: Served) -> HeldDisk:
    flusher = served.shard.committer._flusher
    assert isinstance(flusher, HeldDisk)
    return flusher


# Every server.


async def test_a_reset_before_the_answer_leaves_a_payment_that_stands(
    any_served: Served,
) -> None:
    reader, writer = await any_served.connect(post(ID))
    await until(lambda: bool(disk(any_served).pending))
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    assert await read_to_end(reader) == b""
    disk(any_served).complete()
    assert (await any_served.shard.get(ID)).status == 200
    assert statuses(await any_served.raw(get("/livez"))) == [200]


async def test_pipelined_requests_are_answered_in_their_order(any_served: Served) -> None:
    sent = post(ID, keep=True) + get(f"/v1/payments/{ID}", keep=True) + get("/no/such/path")
    reader, writer = await any_served.connect(sent)
    await until(lambda: bool(disk(any_served).pending))
    disk(any_served).complete()
    assert statuses(await read_to_end(reader)) == [202, 200, 404]
    writer.close()


@pytest.mark.parametrize(
    "headers",
    [b"X-Long: " + b"a" * 600_000, b"\r\n".join(b"X-%d: a" % number for number in range(20_000))],
    ids=["one long", "many"],
)
async def test_headers_without_measure_are_refused(any_served: Served, headers: bytes) -> None:
    reader, writer = await any_served.connect(b"GET /livez HTTP/1.1\r\nHost: a\r\n")
    writer.write(headers + b"\r\n\r\n")
    answered = statuses(await read_to_end(reader))
    assert answered in ([], [400], [431]), "a reset may overtake the answer"
    await end(writer)
    assert statuses(await any_served.raw(get("/livez"))) == [200]


# The server on the loop, whose bounds are our own.


async def test_a_client_that_only_ended_its_own_side_gets_its_answer(tmp_path: Path) -> None:
    served = Served("httptools", in_process_shard(tmp_path, flusher=HeldDisk))
    await served.server.start(5)
    reader, writer = await served.connect(post(ID, keep=True))
    writer.write_eof()
    await until(lambda: bool(disk(served).pending))
    disk(served).complete()
    assert statuses(await read_to_end(reader)) == [202]
    await end(writer)
    await served.server.stop(1)


async def test_thousands_of_requests_behind_a_payment_are_answered_one_by_one(
    tmp_path: Path,
) -> None:
    served = Served("httptools", in_process_shard(tmp_path, flusher=HeldDisk))
    await served.server.start(5)
    first, first_writer = await served.connect(post("order-0000"))
    await until(lambda: bool(disk(served).pending))
    count = 3000
    short = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
    reader, writer = await served.connect(post(ID, keep=True) + short * count + get("/livez"))
    await until(lambda: len(served.shard.committer.ring) == 1)
    other, other_writer = await served.connect(post("order-0002"))
    await until(lambda: len(served.shard.committer.ring) == 2)
    disk(served).complete()
    await until(lambda: bool(disk(served).pending))  # the next commit is begun a turn of the loop later
    disk(served).complete()
    assert statuses(await read_to_end(first)) == [202]
    assert statuses(await read_to_end(other)) == [202], "whoever is in the same batch is answered too"
    assert statuses(await read_to_end(reader)) == [202] + [200] * (count + 1)
    await end(first_writer, writer, other_writer)
    await served.server.stop(1)


@pytest.mark.parametrize("sent", [b"", b"GET /livez HT", b"GET /livez HTTP/1.1\r\nX: a"])
async def test_headers_that_do_not_come_are_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(httptools_server, "HEADER_TIMEOUT_S", 0.05)
    served = Served("httptools", in_process_shard(tmp_path, flusher=PromptDisk))
    await served.server.start(5)
    reader, writer = await served.connect(sent)
    assert await read_to_end(reader) == b""
    await until(lambda: connections(served) == 0)
    await end(writer)
    await served.server.stop(1)


async def test_who_does_not_read_his_answers_is_cut_off(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(httptools_server, "SEND_TIMEOUT_S", 0.05)
    await served.shard.post(ID, BODY | {"metadata": {f"k{n}": "x" * 500 for n in range(20)}})
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.connect(("127.0.0.1", served.port))
    slow.setblocking(False)

    async def ask_on() -> None:
        while True:
            await asyncio.get_running_loop().sock_sendall(slow, get(f"/v1/payments/{ID}", keep=True) * 20)

    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        await asyncio.wait_for(ask_on(), DEADLINE_S)
    await until(lambda: connections(served) == 0)
    slow.close()


async def test_who_does_not_read_the_last_answer_does_not_keep_the_connection(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(httptools_server, "SEND_TIMEOUT_S", 0.05)
    monkeypatch.setattr(httptools_server, "UNSENT_BYTES_MAX", 2**30)
    await served.shard.post(ID, BODY | {"metadata": {f"k{n}": "x" * 500 for n in range(20)}})
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.connect(("127.0.0.1", served.port))
    slow.setblocking(False)
    asked = get(f"/v1/payments/{ID}", keep=True) * 800 + get("/livez")
    await asyncio.get_running_loop().sock_sendall(slow, asked)
    await until(lambda: connections(served) == 1)
    await until(lambda: connections(served) == 0)
    slow.close()


async def occupy(served: Served, count: int) -> list[asyncio.StreamWriter]:
    """Connections that are served and stay."""
    writers = []
    for _ in range(count):
        reader, writer = await served.connect(get("/livez", keep=True))
        assert b" 200 " in await asyncio.wait_for(reader.readuntil(b"\r\n"), DEADLINE_S)
        writers.append(writer)
    return writers


async def test_with_every_connection_taken_health_is_told_and_the_rest_is_refused(served: Served) -> None:
    taken = await occupy(served, CONNECTIONS_MAX)
    for path in ("/livez", "/readyz", "/metrics"):
        answer = await served.raw(get(path, keep=True))
        assert statuses(answer) == [200], path
        assert b"\r\nconnection: close\r\n" in answer
    refused = await served.raw(post(ID, keep=True))
    head_part, _, body = refused.partition(b"\r\n\r\n")
    assert statuses(refused) == [503]
    assert b"\r\nretry-after: 1" in head_part
    assert json.loads(body)["code"] == "overloaded"
    assert b'tollgate_refusals_total{reason="connections"} 1.0' in served.shard.metrics.render()
    await end(*taken)
    await until(lambda: connections(served) == 0)
    assert statuses(await served.raw(post(ID))) == [202], "there is room again"


async def test_beyond_the_reserve_a_newcomer_is_turned_away_and_the_reserve_comes_back(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(httptools_server, "SURPLUS_LIFE_S", 0.5)
    taken = await occupy(served, CONNECTIONS_MAX)
    silent = [await served.connect(b"") for _ in range(OPS_RESERVE)]
    await until(lambda: connections(served) == CONNECTIONS_MAX + OPS_RESERVE)
    reader, writer = await served.connect(b"")
    assert await read_to_end(reader) == b""
    await until(lambda: connections(served) == CONNECTIONS_MAX)
    assert statuses(await served.raw(get("/livez"))) == [200]
    await end(*taken, writer, *(writer for _, writer in silent))


async def test_bodies_that_are_not_whole_are_bounded_over_all_connections(tmp_path: Path) -> None:
    bounds = ConnectionBounds(held_bytes_max=HELD_MAX)
    served = Served("httptools", in_process_shard(tmp_path, flusher=PromptDisk), bounds)
    await served.server.start(5)
    part = b" " * 60_000
    asked = [await served.connect(post(f"order-{n:04d}", part, 65_000)) for n in range(HELD_MAX // 60_000)]
    assert isinstance(served.server, httptools_server.HttptoolsServer)
    shared = served.server._shared
    await until(lambda: shared.held_bytes == len(asked) * 60_000)
    answer = await served.raw(post("order-9999", part, 65_000))
    assert statuses(answer) == [503]
    assert b"retry-after: 1" in answer
    assert b'"overloaded"' in answer
    asked[0][1].write(PAYMENT.ljust(5_000))  # whole now
    assert statuses(await read_to_end(asked[0][0])) == [202]
    await end(*(writer for _, writer in asked))
    await until(lambda: connections(served) == 0)
    assert shared.held_bytes == 0
    await served.server.stop(1)


async def test_what_is_held_is_given_back_however_a_request_ends(served: Served) -> None:
    assert isinstance(served.server, httptools_server.HttptoolsServer)
    body = PAYMENT.ljust(60_000)
    reader, writer = await served.connect(post(ID, body[:30_000], 60_000, keep=True))
    await until(lambda: served.server._shared.held_bytes == 30_000)  # type: ignore[attr-defined]
    writer.write(body[30_000:])
    assert b" 202 " in await asyncio.wait_for(reader.readuntil(b"\r\n"), DEADLINE_S)
    assert served.server._shared.held_bytes == 0
    await end(writer)
