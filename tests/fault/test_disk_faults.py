"""A disk that fails under a real shard with real clients: not one 202 that is not there after the restart."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import aiohttp
import pytest

from gateway.app import EXIT_STORE_FAILED
from tests.fixtures.faulty_disk import OPEN, SYNC, WRITE, FaultyDisk, cut_power
from tests.fixtures.shard import POLL_S
from tests.fixtures.shard_process import READY_S, ShardProcess

pytestmark = pytest.mark.fault

WITHIN_S: Final = 20.0
CLIENTS: Final = 8
FROZEN_EXIT: Final = 1  # faulthandler's
# Short enough for a test, in the order of the defaults; a busy machine must not meet them by itself.
PATIENCE: Final = {
    "TOLLGATE_WATCHDOG__STALLED_S": "1",
    "TOLLGATE_WATCHDOG__HUNG_S": "30",
    "TOLLGATE_WATCHDOG__LINGER_S": "1",
}
# The default run takes one of each kind; `make fault-disk` all of them.
CAMPAIGN: Final = "DISK_FAULT_SEEDS" in os.environ
campaign = pytest.mark.skipif(not CAMPAIGN, reason="`make fault-disk` runs it")
# 40 kB a payment: a memtable is full after some 400.
LARGE: Final = {"metadata": {f"{number:02}": "😀" * 500 for number in range(20)}}


@dataclass
class Bench:
    """A shard on a faulty disk, its clients, and every id with the amount that a 202 was given for."""

    shard: ShardProcess
    disk: FaultyDisk
    session: aiohttp.ClientSession
    accepted: dict[str, int] = field(default_factory=dict)
    _sent: int = 0

    async def start(self, **environment: str) -> None:
        self.shard.start(**(PATIENCE | self.disk.environment | environment))
        await self.shard.ready(self.session)

    async def pay(self, **more: object) -> int | None:
        """Posts a new payment; None when there was no answer."""
        self._sent += 1
        checkout_id, amount = f"order-{self._sent:06}", 1 + self._sent % 9_999
        with suppress(aiohttp.ClientError):
            status = await self.shard.post(self.session, checkout_id, amount, **more)
            if status == 202:
                self.accepted[checkout_id] = amount
            return status
        return None

    async def pay_until(self, condition: Callable[[], bool], **more: object) -> None:
        async def client() -> None:
            while not condition():
                await self.pay(**more)

        async with asyncio.timeout(WITHIN_S):
            await asyncio.gather(*(client() for _ in range(CLIENTS)))

    async def pay_some(self, count: int) -> None:
        enough = len(self.accepted) + count
        await self.pay_until(lambda: len(self.accepted) >= enough)

    async def ask(self, path: str) -> tuple[int, dict[str, Any]]:
        async with self.session.get(f"{self.shard.url}{path}") as response:
            return response.status, await response.json()

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not await condition():
                await asyncio.sleep(POLL_S)

    async def is_unready(self) -> bool:
        return (await self.ask("/readyz"))[0] == 503

    async def has_logged(self, event: str) -> bool:
        return event in self.shard.log()

    async def exit_code(self) -> int:
        process = self.shard.process
        assert process is not None
        return await asyncio.to_thread(process.wait, READY_S)

    async def check_after_restart(self) -> None:
        """On a disk that is well again: everything that was accepted, in a log without a gap."""
        self.disk.heal()
        await self.start()
        await self.check_everything_is_there()

    async def check_everything_is_there(self) -> None:
        changes = await self.shard.changes()
        assert [change.sequence for change in changes] == list(range(1, len(changes) + 1))
        logged = {change.acceptance.checkout_id: change.acceptance.amount for change in changes}
        assert len(logged) == len(changes), "nothing was accepted twice"
        assert self.accepted.items() <= logged.items()
        for checkout_id in Random(1).sample(sorted(self.accepted), min(30, len(self.accepted))):
            status, payment = await self.shard.get(self.session, checkout_id)
            assert (status, payment["amount"]) == (200, self.accepted[checkout_id])
        assert await self.pay() == 202


@pytest.fixture
async def bench(tmp_path: Path, disk_shim: Path) -> AsyncIterator[Bench]:
    folder = tmp_path / "shard"
    folder.mkdir()
    shard = ShardProcess(folder)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15)) as session:
        yield Bench(shard, FaultyDisk(disk_shim, tmp_path, folder), session)
    if shard.process is not None and shard.process.poll() is None:
        shard.kill()


async def fails_for_good(bench: Bench, said: str) -> None:
    """A fault has hit: from here on not one 202, a reason in /readyz, and the process leaves."""
    await bench.until(bench.is_unready)
    before = dict(bench.accepted)
    assert [await bench.pay() for _ in range(5)] == [503] * 5
    status, ready = await bench.ask("/readyz")
    assert status == 503
    assert said in ready["detail"]
    assert "Operator action" in ready["detail"]
    assert (await bench.shard.get(bench.session, "order-000001"))[0] == 503
    assert (await bench.ask("/livez"))[0] == 200
    assert await bench.exit_code() == EXIT_STORE_FAILED
    assert bench.accepted == before
    assert "the store failed" in bench.shard.log()


@pytest.mark.parametrize(
    ("calls", "error", "count", "said"),
    [
        (SYNC, errno.EIO, 1, "fsync of the store failed"),  # RocksDB would go on
        pytest.param(SYNC, errno.EIO, -1, "fsync of the store failed", marks=campaign),
        pytest.param(SYNC, errno.ENOSPC, 1, "No space left", marks=campaign),
        pytest.param(WRITE, errno.EIO, 1, "write of the store failed", marks=campaign),
        (WRITE, errno.ENOSPC, -1, "free space on the volume"),
        pytest.param(WRITE, errno.EROFS, -1, "mount it writable", marks=campaign),
    ],
)
async def test_a_disk_error_ends_acknowledging_for_good(
    bench: Bench, calls: int, error: int, count: int, said: str
) -> None:
    await bench.start()
    await bench.pay_some(60)
    bench.disk.fail(calls, error, count=count)
    await bench.pay_until(lambda: bench.disk.hits > 0)
    await fails_for_good(bench, said)
    await bench.check_after_restart()


async def test_a_short_write_is_finished_and_a_torn_one_ends_it(bench: Bench) -> None:
    await bench.start()
    bench.disk.shorten(count=5)
    await bench.pay_until(lambda: bench.disk.hits >= 5)
    await bench.pay_some(20)
    assert (await bench.ask("/readyz"))[0] == 200
    bench.disk.heal()
    bench.disk.shorten(count=1)
    bench.disk.fail(WRITE, errno.ENOSPC)
    await bench.pay_until(lambda: bench.disk.hits > 1)
    await fails_for_good(bench, "No space left")
    await bench.check_after_restart()


@campaign
async def test_a_file_that_can_not_be_opened_ends_it(bench: Bench) -> None:
    await bench.start()
    bench.disk.fail(OPEN, errno.EMFILE)
    await bench.pay_until(lambda: bench.disk.hits > 0, **LARGE)
    await bench.pay_until(lambda: "the store failed" in bench.shard.log(), **LARGE)
    await fails_for_good(bench, "limit of open files")
    await bench.check_after_restart()


async def test_an_fsync_that_hangs_makes_it_unready_until_it_comes_back(bench: Bench) -> None:
    await bench.start()
    await bench.pay_some(20)
    bench.disk.hang(SYNC)
    assert await bench.pay() == 503, "nobody waits without end"
    status, ready = await bench.ask("/readyz")
    assert (status, "waiting for the disk" in ready["detail"]) == (503, True)
    assert await bench.pay() == 503
    assert (await bench.shard.get(bench.session, min(bench.accepted)))[0] == 200, "reads go on"
    bench.disk.heal()
    await bench.shard.ready(bench.session)
    await bench.pay_some(20)
    await bench.check_everything_is_there()
    bench.shard.kill()
    await bench.check_after_restart()


async def test_an_fsync_that_never_comes_back_ends_the_process(bench: Bench) -> None:
    await bench.start(TOLLGATE_WATCHDOG__HUNG_S="2")
    await bench.pay_some(20)
    bench.disk.hang(SYNC)
    assert await bench.pay() == 503
    assert await bench.exit_code() == EXIT_STORE_FAILED
    await bench.check_after_restart()


async def test_a_write_that_never_comes_back_ends_the_process_from_outside_of_its_loop(bench: Bench) -> None:
    await bench.start(TOLLGATE_WATCHDOG__HUNG_S="2")
    await bench.pay_some(20)
    bench.disk.hang(WRITE)
    assert await bench.pay() is None, "the loop stands still in a system call"
    assert await bench.exit_code() == FROZEN_EXIT
    assert "Timeout" in bench.shard.log(), "the stack that stood still"
    assert "gateway/store/rocks.py" in bench.shard.log()
    await bench.check_after_restart()


@pytest.mark.parametrize(
    ("calls", "path", "error", "said"),
    [
        pytest.param(OPEN, "MANIFEST", errno.EIO, "look at the disk", marks=campaign),
        (SYNC, ".log", errno.EIO, "fsync of the store failed"),
        pytest.param(WRITE, "MANIFEST", errno.ENOSPC, "free space on the volume", marks=campaign),
        pytest.param(OPEN, "watermark", errno.EROFS, "make it writable", marks=campaign),
    ],
)
async def test_a_start_that_meets_the_error_says_so_and_loses_nothing(
    bench: Bench, calls: int, path: str, error: int, said: str
) -> None:
    await bench.start()
    await bench.pay_some(20)
    bench.shard.kill()
    bench.disk.fail(calls, error, path=path)
    bench.shard.start(**(PATIENCE | bench.disk.environment))
    assert await bench.exit_code() == 1
    assert said in bench.shard.log()
    assert "Operator action" in bench.shard.log()
    await bench.check_after_restart()


@pytest.mark.parametrize("seed", range(int(os.environ.get("DISK_FAULT_SEEDS", "1"))))
async def test_a_power_cut_takes_nothing_that_was_acknowledged(
    bench: Bench, tmp_path: Path, seed: int
) -> None:
    random = Random(seed)
    await bench.start()
    await bench.pay_some(random.randrange(50, 300))
    if CAMPAIGN:
        await bench.pay_until(lambda: len(list(bench.shard.folder.glob("db/*.sst"))) > 1, **LARGE)
    paying = asyncio.create_task(bench.pay_some(random.randrange(1, 100)))
    await bench.pay_some(1)
    bench.shard.kill()
    paying.cancel()
    with suppress(asyncio.CancelledError):
        await paying
    bench.shard.folder = cut_power(bench.shard.folder, bench.disk.synced_bytes(), tmp_path / "after")
    bench.shard.start(**PATIENCE)
    await bench.shard.ready(bench.session)
    await bench.check_everything_is_there()


@pytest.mark.parametrize(
    "jump_s",
    [366 * 86400, *(pytest.param(seconds, marks=campaign) for seconds in (3600, -3600, -366 * 86400))],
)
async def test_a_clock_that_jumps_loses_nothing_and_ends_nothing(bench: Bench, jump_s: int) -> None:
    await bench.start(TOLLGATE_RETENTION__INTERVAL_S="0.05")
    await bench.pay_some(30)
    bench.disk.shift_clock(jump_s)
    shifted = len(bench.accepted)
    await bench.pay_some(30)
    times = [change.committed_at_us for change in await bench.shard.changes()]
    assert abs(times[-1] - times[shifted - 1] - jump_s * 1_000_000) < WITHIN_S * 1_000_000
    await bench.until(lambda: bench.has_logged("the clock is not where it was expected"))
    await bench.check_everything_is_there()
    bench.shard.kill()
    await bench.check_after_restart()
    bench.disk.shift_clock(0)
    await bench.pay_some(5)
    bench.shard.kill()
    await bench.check_after_restart()
