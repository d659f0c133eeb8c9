"""What every server does for the app, over real sockets: one suite for each `shard.server`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import get_args

import aiohttp
import pytest

from gateway.http import asgi, httptools_server, rsgi
from gateway.http.payments import BODY_BYTES_MAX
from gateway.http.server import ServerName, http_server
from tests.fixtures.served import Served, head
from tests.fixtures.shard import (
    API_KEY,
    BODY,
    MERCHANT,
    POLL_S,
    HeldDisk,
    PromptDisk,
    in_process_shard,
)
from tollgate.errors import ConfigurationError
from tollgate.status import SUCCEEDED
from tollgate.v1.payment_pb2 import Capture, Payment

ID = "order-0001"
HEADERS = {
    "Authorization": f"Bearer {API_KEY}",
    "Content-Type": "application/json",
    "X-PAYMENT-CHECKOUT-ID": ID,
}
HEADERS_OF_A_READ = {"Authorization": f"Bearer {API_KEY}"}
STOP_S = 5.0


@pytest.fixture(params=get_args(ServerName))
def server_name(request: pytest.FixtureRequest) -> ServerName:
    name: ServerName = request.param
    return name


@pytest.fixture
async def served(server_name: ServerName, tmp_path: Path) -> AsyncIterator[Served]:
    served = Served(server_name, in_process_shard(tmp_path, flusher=PromptDisk))
    await served.server.start(5)
    yield served
    await served.server.stop(STOP_S)


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


async def test_a_payment_is_taken_and_read(served: Served, client: aiohttp.ClientSession) -> None:
    async with client.post(f"{served.url}/v1/payments", json=BODY, headers=HEADERS) as response:
        assert response.status == 202
        assert response.headers["Location"] == f"/v1/payments/{ID}"
        assert response.headers["Content-Type"] == "application/json"
        accepted = await response.json()
    async with client.get(f"{served.url}/v1/payments/{ID}", headers=HEADERS) as response:
        assert (response.status, await response.json()) == (200, accepted)
        assert response.headers["ETag"] == '"0"'
    query = {"client_secret": accepted["client_secret"]}
    async with client.get(f"{served.url}/v1/payments/{ID}", params=query) as response:
        assert response.status == 200


async def test_answers_without_a_body_have_none(served: Served, client: aiohttp.ClientSession) -> None:
    await (await client.post(f"{served.url}/v1/payments", json=BODY, headers=HEADERS)).read()
    matching = HEADERS | {"If-None-Match": '"0"'}
    for method, extra, status in (("GET", matching, 304), ("HEAD", HEADERS, 200), ("OPTIONS", {}, 204)):
        async with client.request(method, f"{served.url}/v1/payments/{ID}", headers=extra) as response:
            assert (response.status, await response.read()) == (status, b"")
    async with client.get(f"{served.url}/livez") as response:
        assert response.status == 200, "the connection is still in step"


async def test_a_path_arrives_decoded_and_a_repeated_header_twice(served: Served) -> None:
    await served.shard.post(ID)
    answer = await served.raw(head("GET", "/v1/payments/order%2D0001", Authorization=f"Bearer {API_KEY}"))
    assert answer.startswith(b"HTTP/1.1 200")
    twice = head("GET", f"/v1/payments/{ID}", Authorization=f"Bearer {API_KEY}", authorization="Bearer x")
    assert (await served.raw(twice)).startswith((b"HTTP/1.1 401", b"HTTP/1.1 503"))


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_has_a_bound(served: Served, client: aiohttp.ClientSession, chunked: bool) -> None:
    async def pieces(raw: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(raw), 10_000):
            yield raw[start : start + 10_000]

    sound = json.dumps(BODY).encode()
    for size, status in ((0, 202), (BODY_BYTES_MAX, 200), (BODY_BYTES_MAX + 1, 413), (900_000, 413)):
        raw = sound.ljust(size)
        data = pieces(raw) if chunked else raw
        async with client.post(f"{served.url}/v1/payments", data=data, headers=HEADERS) as response:
            assert response.status == status
            assert (await response.json())["status"] in ("pending", 413)


async def test_a_body_that_does_not_come_is_not_waited_for_without_end(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    for adapter in (rsgi, asgi, httptools_server):
        monkeypatch.setattr(adapter, "BODY_TIMEOUT_S", 0.05)
    half = head("POST", "/v1/payments", **HEADERS, Content_Length="100") + b'{"amount":'
    assert (await served.raw(half)).startswith(b"HTTP/1.1 408")


async def test_header_bytes_that_are_no_text_are_survived(served: Served) -> None:
    odd = head("GET", f"/v1/payments/{ID}", Authorization="Bearer XX").replace(b"XX", b"\xff\xfe")
    assert (await served.raw(odd)).startswith((b"HTTP/1.1 401", b"HTTP/1.1 503"))
    assert (await served.raw(head("GET", "/%FF%FE"))).startswith((b"HTTP/1.1 404", b"HTTP/1.1 400"))
    assert (await served.raw(head("GET", "/livez"))).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("coding", ["gzip, chunked", "gzip", "chunked, chunked", "identity"])
async def test_a_body_in_a_coding_that_is_not_undone_is_no_payment(served: Served, coding: str) -> None:
    raw = json.dumps(BODY).encode()
    request = head("POST", "/v1/payments", **HEADERS, Transfer_Encoding=coding)
    answer = await served.raw(request + b"%x\r\n%s\r\n0\r\n\r\n" % (len(raw), raw))
    assert answer.startswith(b"HTTP/1.1 400")
    assert not served.shard.committer.durable.last


async def test_a_taken_address_is_refused(served: Served, server_name: ServerName) -> None:
    second = http_server(served.shard.http, f"127.0.0.1:{served.port}", server_name)
    with pytest.raises(ConfigurationError, match="can't be listened on"):
        await second.start(5)


async def test_a_stop_is_bounded_with_idle_clients_and_half_sent_bodies(served: Served) -> None:
    _, idle = await served.connect(b"GET /livez HTTP/1.1\r\nHost: shard\r\n\r\n")
    _, half = await served.connect(
        head("POST", "/v1/payments", **HEADERS, Content_Length="100") + b'{"amount":'
    )
    async with asyncio.timeout(STOP_S + 5):
        await served.server.stop(0.2)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", served.port)
    idle.close()
    half.close()


async def test_a_request_under_way_is_answered_before_the_stop(
    server_name: ServerName, tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    served = Served(server_name, in_process_shard(tmp_path, flusher=HeldDisk))
    await served.server.start(5)
    flusher = served.shard.committer._flusher
    assert isinstance(flusher, HeldDisk)
    posted = asyncio.create_task(client.post(f"{served.url}/v1/payments", json=BODY, headers=HEADERS))
    async with asyncio.timeout(5):
        while not flusher.pending:  # the disk is no event
            await asyncio.sleep(POLL_S)
    stopping = asyncio.create_task(served.server.stop(STOP_S))
    await asyncio.sleep(0)
    flusher.complete()
    assert (await posted).status == 202
    assert await stopping


async def test_an_answer_that_waits_for_others_keeps_nobody_waiting(
    served: Served, client: aiohttp.ClientSession
) -> None:
    served.shard.ledger.held = asyncio.Event()
    url = f"{served.url}/v1/payments"
    reading = asyncio.ensure_future(client.get(f"{url}/order-elsewhere", headers=HEADERS_OF_A_READ))
    while not served.shard.ledger.asked:
        await asyncio.sleep(POLL_S)
    async with client.post(url, json=BODY, headers=HEADERS) as accepted:
        assert accepted.status == 202
    assert not reading.done()
    served.shard.ledger.held.set()
    async with await reading as answer:
        assert answer.status == 404


async def test_who_goes_away_while_others_are_asked_harms_nobody(
    served: Served, client: aiohttp.ClientSession
) -> None:
    served.shard.ledger.held = asyncio.Event()
    authorization = HEADERS_OF_A_READ["Authorization"]
    _reader, writer = await served.connect(
        head("GET", "/v1/payments/order-gone", Authorization=authorization)
    )
    while not served.shard.ledger.asked:
        await asyncio.sleep(POLL_S)
    writer.close()
    await writer.wait_closed()
    served.shard.ledger.held.set()
    async with client.get(f"{served.url}/v1/payments/order-there", headers=HEADERS_OF_A_READ) as answer:
        assert answer.status == 404


async def test_an_operation_is_asked_for_and_told_and_a_payment_changed(
    served: Served, client: aiohttp.ClientSession
) -> None:
    ledger_knows(served, ID)
    url = f"{served.url}/v1/payments/{ID}"
    asking = HEADERS_OF_A_READ | {"Idempotency-Key": "key-1"}
    async with client.post(f"{url}/refunds", json={"amount": 500}, headers=asking) as accepted:
        assert accepted.status == 202
        assert accepted.headers["Content-Type"] == "application/json"
        operation = await accepted.json()
        assert accepted.headers["Location"] == f"/v1/payments/{ID}/operations/{operation['id']}"
    for method, status in (("GET", 200), ("HEAD", 200), ("DELETE", 405)):
        address = f"{url}/operations/{operation['id']}"
        async with client.request(method, address, headers=HEADERS_OF_A_READ) as told:
            assert told.status == status
            assert method != "GET" or await told.json() == operation
            assert method != "HEAD" or await told.read() == b""
    change = {"If-Match": '"3"', **HEADERS_OF_A_READ}
    async with client.patch(url, json={"metadata": {"a": "b"}}, headers=change) as changed:
        assert (changed.status, changed.headers["ETag"]) == (200, '"4"')
        payment = await changed.json()
    async with client.get(f"{served.url}/v1/payments?limit=1", headers=HEADERS_OF_A_READ) as page:
        assert (page.status, await page.json()) == (200, {"data": [payment], "next_cursor": None})


async def test_an_operation_needs_no_body_and_bounds_one(
    served: Served, client: aiohttp.ClientSession
) -> None:
    ledger_knows(served, ID)
    url = f"{served.url}/v1/payments/{ID}/refunds"
    asking = HEADERS_OF_A_READ | {"Idempotency-Key": '"key-1"'}
    head_alone = head("POST", f"/v1/payments/{ID}/refunds", **asking)
    assert (await served.raw(head_alone)).startswith((b"HTTP/1.1 202", b"HTTP/1.1 411"))
    async with client.post(url, headers=asking) as answer:
        assert answer.status in (200, 202)
    sent = asking | {"Content-Type": "application/json"}
    async with client.post(url, data=b"{}".ljust(BODY_BYTES_MAX + 1), headers=sent) as answer:
        assert answer.status == 413
    async with client.post(f"{served.url}/v1/payments/order%2F1/refunds", headers=asking) as answer:
        assert answer.status == 404
    twice = head("POST", f"/v1/payments/{ID}/refunds", **asking, idempotency_key="key-2")
    assert (await served.raw(twice)).startswith(b"HTTP/1.1 400")


async def test_a_ledger_that_is_asked_for_an_operation_keeps_no_payment_waiting(
    served: Served, client: aiohttp.ClientSession
) -> None:
    served.shard.ledger.held = asyncio.Event()
    url = f"{served.url}/v1/payments"
    asking = HEADERS_OF_A_READ | {"Idempotency-Key": "key-1"}
    cancelling = asyncio.ensure_future(client.post(f"{url}/{ID}/cancel", headers=asking))
    async with asyncio.timeout(5):
        while not served.shard.ledger.asked:
            await asyncio.sleep(POLL_S)
    async with client.post(url, json=BODY, headers=HEADERS) as accepted:
        assert accepted.status == 202
    assert not cancelling.done()
    served.shard.ledger.held.set()
    async with await cancelling as answer:
        assert (answer.status, (await answer.json())["code"]) == (409, "not_yet_processed")


def ledger_knows(served: Served, checkout_id: str) -> None:
    payment = Payment(
        merchant=MERCHANT,
        checkout_id=checkout_id,
        status=SUCCEEDED,
        version=2,
        amount=1999,
        currency="EUR",
        capture=Capture.CAPTURE_AUTOMATIC,
        captured_amount=1999,
        created_at_us=served.shard.clock.now_us(),
        updated_at_us=served.shard.clock.now_us(),
    )
    served.shard.ledger.has(payment)
