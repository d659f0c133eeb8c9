"""A real shard process: killed, stopped, started twice, started on what is not its own."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import aiohttp
import pytest

from tests.fixtures.shard import API_KEY, POLL_S
from tests.fixtures.shard_process import READY_S, STOP_S, ShardProcess
from tollgate.watermark import WatermarkReader


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[ShardProcess]:
    shard = ShardProcess(tmp_path)
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
    shard: ShardProcess, session: aiohttp.ClientSession
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
    assert [change.sequence for change in changes] == [1, 2]
    assert changes[0].epoch < changes[1].epoch
    watermark = WatermarkReader(shard.folder / "watermark").read()
    assert watermark == (changes[0].incarnation, changes[1].epoch, 2)
    assert API_KEY not in shard.log()


@pytest.mark.fault
async def test_every_202_is_there_after_kill_9_under_load(
    shard: ShardProcess, session: aiohttp.ClientSession
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
    shard: ShardProcess, session: aiohttp.ClientSession
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
    shard: ShardProcess, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    shard.start()
    await shard.ready(session)
    first = shard.process
    twin = ShardProcess(tmp_path)
    same_folder = twin.start()
    assert await asyncio.to_thread(same_folder.wait, READY_S) == 1
    assert "end the process that holds it" in twin.log()
    (tmp_path / "other").mkdir()
    neighbour = ShardProcess(tmp_path / "other")
    neighbour.port = shard.port
    same_port = neighbour.start()
    assert await asyncio.to_thread(same_port.wait, READY_S) == 2
    assert "TOLLGATE_SHARD__HTTP" in neighbour.log()
    assert first is not None
    assert first.poll() is None


async def test_another_shards_folder_and_wrong_settings_are_refused(
    shard: ShardProcess, session: aiohttp.ClientSession
) -> None:
    shard.start()
    await shard.ready(session)
    shard.kill()
    assert await asyncio.to_thread(shard.start(TOLLGATE_SHARD__ID="4").wait, READY_S) == 1
    assert "belongs to shard 3, not to shard 4" in shard.log()
    assert await asyncio.to_thread(shard.start(TOLLGATE_CLIENT_SECRET_KEY="short").wait, READY_S) == 2
    assert "TOLLGATE_CLIENT_SECRET_KEY" in shard.log()


async def test_sigint_ends_it_too(shard: ShardProcess, session: aiohttp.ClientSession) -> None:
    process = shard.start()
    await shard.ready(session)
    process.send_signal(signal.SIGINT)
    assert await asyncio.to_thread(process.wait, STOP_S) == 0
