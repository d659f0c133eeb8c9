"""A real shard process: killed, stopped, started twice, started on what is not its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest
from grpc import aio

from tests.fixtures.free_port import free_port
from tests.fixtures.shard import API_KEY, BODY, MERCHANT, POLL_S
from tollgate.v1.change_pb2 import Change
from tollgate.v1.shard_pb2 import ReadChangesRequest
from tollgate.v1.shard_pb2_grpc import ShardStub
from tollgate.watermark import WatermarkReader

READY_S = 15.0
STOP_S = 10.0


class Shard:
    """`python -m gateway` on a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.grpc_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **environment: str) -> subprocess.Popen[bytes]:
        own = {
            "TOLLGATE_SHARD__ID": "3",
            "TOLLGATE_SHARD__DATA_DIR": str(self.folder),
            "TOLLGATE_SHARD__HTTP": f"127.0.0.1:{self.port}",
            "TOLLGATE_SHARD__GRPC": f"127.0.0.1:{self.grpc_port}",
            "TOLLGATE_CLIENT_SECRET_KEY": "0123456789abcdef" * 2,
            "TOLLGATE_DEVELOPMENT__API_KEY": API_KEY,
            "TOLLGATE_DEVELOPMENT__MERCHANT": MERCHANT,
        }
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway"], env=os.environ | own | environment, stderr=log
            )
        return self.process

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(STOP_S)

    def log(self) -> str:
        return (self.folder / "log").read_text()

    async def ready(self, session: aiohttp.ClientSession) -> None:
        assert self.process is not None
        async with asyncio.timeout(READY_S):
            while True:
                assert self.process.poll() is None, self.log()
                with suppress(aiohttp.ClientConnectionError):
                    async with session.get(f"{self.url}/readyz") as response:
                        if response.status == 200:
                            return
                await asyncio.sleep(POLL_S)

    def headers(self, checkout_id: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {API_KEY}", "X-PAYMENT-CHECKOUT-ID": checkout_id}

    async def post(self, session: aiohttp.ClientSession, checkout_id: str, amount: int = 1200) -> int:
        headers = self.headers(checkout_id)
        body = BODY | {"amount": amount}
        async with session.post(f"{self.url}/v1/payments", json=body, headers=headers) as response:
            await response.read()
            return response.status

    async def get(self, session: aiohttp.ClientSession, checkout_id: str) -> tuple[int, dict[str, Any]]:
        url = f"{self.url}/v1/payments/{checkout_id}"
        async with session.get(url, headers=self.headers(checkout_id)) as response:
            return response.status, await response.json()

    async def changes(self) -> list[Change]:
        found: list[Change] = []
        async with aio.insecure_channel(f"127.0.0.1:{self.grpc_port}") as channel:
            while True:
                request = ReadChangesRequest(from_sequence=len(found) + 1, limit=10_000)
                answer = await ShardStub(channel).ReadChanges(request, timeout=10)
                found += map(Change.FromString, answer.changes)
                if len(found) >= answer.durable_sequence:
                    return found


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[Shard]:
    shard = Shard(tmp_path)
    yield shard
    if shard.process is not None and shard.process.poll() is None:
        shard.kill()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=15)
    connector = aiohttp.TCPConnector(limit=0, force_close=False)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        yield session


async def test_it_serves_stops_and_finds_everything_again(
    shard: Shard, session: aiohttp.ClientSession
) -> None:
    shard.start()
    await shard.ready(session)
    assert await shard.post(session, "order-0001") == 202
    assert await shard.post(session, "order-0001") == 200
    assert await shard.post(session, "order-0001", amount=1) == 422
    first = shard.process
    assert first is not None
    first.terminate()
    assert await asyncio.to_thread(first.wait, STOP_S) == 0
    shard.start()
    await shard.ready(session)
    assert (await shard.get(session, "order-0001"))[0] == 200
    assert await shard.post(session, "order-0002") == 202
    changes = await shard.changes()
    assert [(change.sequence, change.epoch) for change in changes] == [(1, 1), (2, 2)]
    watermark = WatermarkReader(shard.folder / "watermark").read()
    assert watermark == (changes[0].incarnation, 2, 2)
    assert API_KEY not in shard.log()


@pytest.mark.fault
async def test_every_202_is_there_after_kill_9_under_load(
    shard: Shard, session: aiohttp.ClientSession
) -> None:
    random = Random(20261121)
    accepted: dict[str, int] = {}
    number = 0

    async def client(stopped: asyncio.Event) -> None:
        nonlocal number
        while not stopped.is_set():
            number += 1
            checkout_id, amount = f"order-{number:06}", 1 + number % 9_999
            with suppress(aiohttp.ClientError):
                if await shard.post(session, checkout_id, amount) == 202:
                    accepted[checkout_id] = amount

    for _ in range(3):
        shard.start()
        await shard.ready(session)
        stopped = asyncio.Event()
        before = len(accepted)
        clients = [asyncio.create_task(client(stopped)) for _ in range(16)]
        target = before + random.randrange(50, 400)
        async with asyncio.timeout(20):
            while len(accepted) < target:  # there is no event for a number of answers
                await asyncio.sleep(POLL_S)
        shard.kill()
        stopped.set()
        await asyncio.gather(*clients)

    shard.start()
    await shard.ready(session)
    changes = await shard.changes()
    assert [change.sequence for change in changes] == list(range(1, len(changes) + 1))
    logged = {change.acceptance.checkout_id: change.acceptance.amount for change in changes}
    assert len(logged) == len(changes), "no payment was accepted twice"
    assert accepted.items() <= logged.items()
    for checkout_id in random.sample(sorted(accepted), 50):
        status, payment = await shard.get(session, checkout_id)
        assert (status, payment["amount"]) == (200, accepted[checkout_id])


async def test_sigterm_ends_it_in_time_with_idle_clients_and_a_half_sent_body(
    shard: Shard, session: aiohttp.ClientSession
) -> None:
    process = shard.start()
    await shard.ready(session)  # leaves its connection open
    _, half = await asyncio.open_connection("127.0.0.1", shard.port)
    head = "POST /v1/payments HTTP/1.1\r\nHost: shard\r\nContent-Length: 100\r\n\r\n{"
    half.write(head.encode())
    await half.drain()
    assert await shard.post(session, "order-0001") == 202
    process.terminate()
    assert await asyncio.to_thread(process.wait, STOP_S) == 0
    half.close()
    assert [json.loads(line)["event"] for line in shard.log().splitlines()] == ["serving", "stopped"]


async def test_a_second_process_on_the_same_folder_or_address_is_refused(
    shard: Shard, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    shard.start()
    await shard.ready(session)
    first = shard.process
    twin = Shard(tmp_path)
    same_folder = twin.start()
    assert await asyncio.to_thread(same_folder.wait, READY_S) == 1
    assert "end the process that holds it" in twin.log()
    (tmp_path / "other").mkdir()
    neighbour = Shard(tmp_path / "other")
    neighbour.port = shard.port
    same_port = neighbour.start()
    assert await asyncio.to_thread(same_port.wait, READY_S) == 2
    assert "TOLLGATE_SHARD__HTTP" in neighbour.log()
    assert first is not None
    assert first.poll() is None


async def test_another_shards_folder_and_wrong_settings_are_refused(
    shard: Shard, session: aiohttp.ClientSession
) -> None:
    shard.start()
    await shard.ready(session)
    shard.kill()
    assert await asyncio.to_thread(shard.start(TOLLGATE_SHARD__ID="4").wait, READY_S) == 1
    assert "belongs to shard 3, not to shard 4" in shard.log()
    assert await asyncio.to_thread(shard.start(TOLLGATE_CLIENT_SECRET_KEY="short").wait, READY_S) == 2
    assert "TOLLGATE_CLIENT_SECRET_KEY" in shard.log()


async def test_sigint_ends_it_too(shard: Shard, session: aiohttp.ClientSession) -> None:
    process = shard.start()
    await shard.ready(session)
    process.send_signal(signal.SIGINT)
    assert await asyncio.to_thread(process.wait, STOP_S) == 0
