"""The last answer of a connection arrives, is one, and says that it is the last."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.http import httptools_server
from tests.fixtures.served import Served, head
from tests.fixtures.shard import API_KEY, BODY, in_process_shard
from tests.fixtures.waiting import wait_until

STOP_S = 5.0
HEADERS = {
    "Authorization": f"Bearer {API_KEY}",
    "Content-Type": "application/json",
    "X-PAYMENT-CHECKOUT-ID": "order-0001",
}


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    served = Served("httptools", in_process_shard(tmp_path))
    await served.server.start(5)
    yield served
    await served.server.stop(STOP_S)


async def test_what_follows_a_last_request_is_not_answered(served: Served) -> None:
    raw = json.dumps(BODY).encode()
    payment = head("POST", "/v1/payments", **HEADERS, Content_Length=str(len(raw))) + raw
    for first, status in ((head("GET", "/livez"), 200), (payment, 202)):  # answered at once; answered later
        answer = await served.raw(first + head("GET", "/livez") + b"\0 no HTTP at all")
        assert answer.count(b"HTTP/1.1 ") == 1
        assert answer.startswith(b"HTTP/1.1 %d" % status)


@pytest.mark.parametrize("first", [b"no HTTP at all\r\n\r\n", head("GET", "/nothing")])
async def test_who_is_still_sending_sees_the_last_answer_and_is_not_reset(
    served: Served, first: bytes
) -> None:
    reader, writer = await served.connect(first)
    answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.startswith(b"HTTP/1.1 40")
    assert b"connection: close\r\n" in answer
    for _ in range(50):  # each would meet the reset of the one before
        writer.write(b"x" * 65_536)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def test_who_never_ends_his_side_is_not_kept(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httptools_server, "LINGER_S", 0.0)
    reader, writer = await served.connect(head("GET", "/livez"))
    await asyncio.wait_for(reader.read(), 10)
    connections = served.server._shared.connections  # type: ignore[attr-defined]
    await asyncio.to_thread(wait_until, lambda: not connections, "the connection is gone")
    writer.close()


async def test_a_late_bodys_refusal_says_once_that_it_is_the_last(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(httptools_server, "BODY_TIMEOUT_S", 0.0)
    answer = await served.raw(head("POST", "/v1/payments", Content_Length="9"))
    assert answer.startswith(b"HTTP/1.1 408")
    assert answer.count(b"connection: close") == 1
