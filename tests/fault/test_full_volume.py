"""A small volume that really fills up under a real shard; it needs root and mount, else it is skipped."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from grpc import aio

from gateway.app import EXIT_STORE_FAILED
from tests.fixtures.shard import MERCHANT, POLL_S
from tests.fixtures.shard_process import READY_S, ShardProcess
from tollgate.v1.payment_pb2 import Capture, Payment, Status
from tollgate.v1.shard_pb2 import AcknowledgeChangesRequest, ApplyStatusRequest, StatusUpdate
from tollgate.v1.shard_pb2_grpc import ShardStub

pytestmark = pytest.mark.fault

WITHIN_S: Final = 30.0
CLIENTS: Final = 8
# 40 kB a payment, stored twice.
LARGE: Final = {"metadata": {f"{number:02}": "😀" * 500 for number in range(20)}}


class Volume:
    """A tmpfs of 300 MiB, some of it taken by others."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def mount(self, *options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(self.path)]
        subprocess.run(command, check=True, capture_output=True)

    def fill(self, mib: int) -> None:
        with (self.path / "others").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, mib * 1024 * 1024)

    def remount(self, *options: str) -> None:
        self.mount("remount", *options)


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a volume to fill")
    path = tmp_path / "volume"
    path.mkdir()
    volume = Volume(path)
    try:
        volume.mount("size=300m")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no volume can be mounted here")
    yield volume
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15)) as session:
        yield session


@pytest.fixture
def shard(volume: Volume, tmp_path: Path) -> Iterator[ShardProcess]:
    shard = ShardProcess(volume.path)
    yield shard
    if shard.process is not None and shard.process.poll() is None:
        shard.kill()


async def pay_until_refused(shard: ShardProcess, session: aiohttp.ClientSession) -> dict[str, int]:
    """Every id that got its 202, until the first answer of another kind."""
    accepted: dict[str, int] = {}
    refused = asyncio.Event()
    sent = 0

    async def client() -> None:
        nonlocal sent
        while not refused.is_set():
            sent += 1
            checkout_id, amount = f"order-{sent:06}", 1 + sent
            status = await shard.post(session, checkout_id, amount, **LARGE)
            if status == 202:
                accepted[checkout_id] = amount
            else:
                assert status == 503
                refused.set()

    async with asyncio.timeout(WITHIN_S):
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return accepted


async def check_everything_is_there(
    shard: ShardProcess, session: aiohttp.ClientSession, accepted: dict[str, int]
) -> None:
    for checkout_id, amount in accepted.items():
        status, payment = await shard.get(session, checkout_id)
        assert (status, payment["amount"]) == (200, amount)
    changes = await shard.changes()
    assert [change.sequence for change in changes] == list(range(1, len(changes) + 1))


async def ready_document(shard: ShardProcess, session: aiohttp.ClientSession) -> tuple[int, dict[str, Any]]:
    async with session.get(f"{shard.url}/readyz") as response:
        return response.status, await response.json()


async def test_growth_is_refused_before_the_volume_is_full_and_goes_on_when_it_has_room(
    volume: Volume, shard: ShardProcess, session: aiohttp.ClientSession
) -> None:
    volume.fill(120)
    shard.start(TOLLGATE_SHARD__DISK_FREE_MIN="128MiB")
    await shard.ready(session)
    accepted = await pay_until_refused(shard, session)
    first = min(accepted)
    status, ready = await ready_document(shard, session)
    assert status == 200, (ready, shard.log())
    assert "New payments are refused" in ready.get("detail", ""), (ready, shard.log())
    assert await shard.post(session, first, accepted[first], **LARGE) == 200
    assert await shard.post(session, first, 1_000_000) == 422
    async with aio.insecure_channel(f"127.0.0.1:{shard.grpc_port}") as channel:
        stub = ShardStub(channel)
        change = (await shard.changes())[-1]
        payment = Payment(
            merchant=MERCHANT,
            checkout_id=first,
            version=1,
            status=Status.STATUS_SUCCEEDED,
            capture=Capture.CAPTURE_AUTOMATIC,
            amount=accepted[first],
        )
        applied = await stub.ApplyStatus(ApplyStatusRequest(updates=[StatusUpdate(payment=payment)]))
        assert applied.applied == 1
        shipped = AcknowledgeChangesRequest(
            incarnation=change.incarnation, epoch=change.epoch, sequence=change.sequence
        )
        assert (await stub.AcknowledgeChanges(shipped)).acknowledged == change.sequence
    assert (await shard.get(session, first))[1]["status"] == "succeeded"

    volume.remount("size=700m")
    async with asyncio.timeout(WITHIN_S):
        while await shard.post(session, "order-with-room") != 202:
            await asyncio.sleep(POLL_S)
    await check_everything_is_there(shard, session, accepted)
    assert "the store failed" not in shard.log()
    assert "there is room again" in shard.log()


async def test_a_volume_that_is_full_ends_the_shard_and_loses_nothing(
    volume: Volume, shard: ShardProcess, session: aiohttp.ClientSession
) -> None:
    linger = {"TOLLGATE_SHARD__DISK_FREE_MIN": "0", "TOLLGATE_WATCHDOG__LINGER_S": "1"}
    volume.fill(240)
    process = shard.start(**linger)
    await shard.ready(session)
    accepted = await pay_until_refused(shard, session)
    status, ready = await ready_document(shard, session)
    assert status == 503
    assert "No space left" in ready["detail"]
    assert "free space on the volume" in ready["detail"]
    assert await shard.post(session, "order-too-late") == 503
    assert await asyncio.to_thread(process.wait, READY_S) == EXIT_STORE_FAILED

    volume.remount("size=700m")
    shard.start(**linger)
    await shard.ready(session)
    await check_everything_is_there(shard, session, accepted)
    assert await shard.post(session, "order-with-room") == 202


async def test_a_read_only_volume_is_refused_at_start_with_a_word(
    volume: Volume, shard: ShardProcess, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    shard.start(TOLLGATE_SHARD__DISK_FREE_MIN="0")
    await shard.ready(session)
    assert await shard.post(session, "order-0001", 77) == 202
    shard.kill()
    volume.remount("ro")
    beside = ShardProcess(tmp_path)
    refused = beside.start(TOLLGATE_SHARD__DATA_DIR=str(volume.path))
    assert await asyncio.to_thread(refused.wait, READY_S) == 1
    assert "Read-only file system" in beside.log()
    assert "Operator action" in beside.log()
    volume.remount("rw")
    shard.start(TOLLGATE_SHARD__DISK_FREE_MIN="0")
    await shard.ready(session)
    await check_everything_is_there(shard, session, {"order-0001": 77})
