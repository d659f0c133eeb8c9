"""What the Ledger knows better is told once it is on this shard's disk, and not where it can't be."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from gateway.errors import StoreBusy
from gateway.planner import Acknowledgement
from gateway.settings import CommitSettings, LookUpSettings
from gateway.store.interface import Store
from tests.fixtures.elsewhere import ring_of
from tests.fixtures.shard import MERCHANT, POLL_S, HeldDisk, InProcessShard, header, in_process_shard
from tollgate.ids import payment_key
from tollgate.v1.payment_pb2 import Payment, Status


async def flushing(disk: HeldDisk) -> None:
    async with asyncio.timeout(5):
        while not disk.pending:
            await asyncio.sleep(POLL_S)


async def with_a_held_disk(tmp_path: Path, **changes: Any) -> tuple[InProcessShard, HeldDisk]:
    """A shard that has accepted checkout-1."""
    disks: list[HeldDisk] = []

    def flusher(store: Store) -> HeldDisk:
        disks.append(HeldDisk(store))
        return disks[-1]

    shard = in_process_shard(tmp_path, flusher=flusher, **changes)
    posting = asyncio.create_task(shard.post("checkout-1"))
    await flushing(disks[0])
    disks[0].complete()
    await posting
    return shard, disks[0]


def known_better(shard: InProcessShard, status: Status.ValueType) -> Payment:
    """checkout-1, which is version 0 here, is version 2 to the Ledger; and it is time to ask for it."""
    stored = shard.committer.read(payment_key(MERCHANT, "checkout-1"))
    assert stored is not None
    news = Payment.FromString(stored)
    news.version, news.status = 2, status
    shard.ledger.has(news)
    shard.clock.advance(30)
    return news


async def etags(shard: InProcessShard) -> list[str | None]:
    """Of two reads of checkout-1: the second asks nobody."""
    return [header(await shard.get("checkout-1"), "etag") for _ in range(2)]


async def test_news_from_the_ledger_are_told_once_they_are_on_disk_here(tmp_path: Path) -> None:
    """Else the next read, which sees the disk, takes them back. A slow disk is waited for, but not long."""
    shard, disk = await with_a_held_disk(tmp_path, look_ups=LookUpSettings(timeout_s=0.05))
    news = known_better(shard, Status.STATUS_PROCESSING)
    assert header(await shard.get("checkout-1"), "etag") == '"0"'
    assert header(await shard.get("checkout-1"), "etag") == '"0"'
    disk.complete()
    assert header(await shard.get("checkout-1"), "etag") == '"2"'

    news.version = 3
    shard.clock.advance(30)
    reading = asyncio.create_task(shard.get("checkout-1"))
    await flushing(disk)
    disk.complete()
    assert header(await reading, "etag") == '"3"'


async def test_news_of_what_is_here_are_kept_though_the_ring_has_moved_on(tmp_path: Path) -> None:
    """nginx goes by the ring before for a moment, and reads come here."""
    shard = in_process_shard(tmp_path)
    await shard.post("checkout-1")
    shard.ring.set(ring_of((0,), (0, 3)))
    known_better(shard, Status.STATUS_PROCESSING)
    assert await etags(shard) == ['"2"', '"2"']


async def test_news_so_old_that_they_may_leave_are_kept_over_what_is_here(tmp_path: Path) -> None:
    shard = in_process_shard(tmp_path)
    await shard.post("checkout-1")
    known_better(shard, Status.STATUS_FAILED)
    shard.clock.advance(40 * 24 * 3600)
    assert await etags(shard) == ['"2"', '"2"']


async def test_news_that_a_full_ring_refuses_are_not_told(tmp_path: Path) -> None:
    commit = CommitSettings(ring_slots=2, batch_count_max=1)
    shard, disk = await with_a_held_disk(tmp_path, commit=commit)
    known_better(shard, Status.STATUS_PROCESSING)
    asyncio.create_task(shard.post("checkout-2"))  # noqa: RUF006
    await flushing(disk)
    for _ in range(2):
        shard.committer.submit(Acknowledgement(*shard.committer.identity[1:], 0))
    assert await etags(shard) == ['"0"', '"0"']


async def test_news_that_the_store_refuses_are_not_told(tmp_path: Path) -> None:
    refuses = False

    def fault(call: str) -> None:
        if refuses and call == "write":
            raise StoreBusy("The store is behind with its own work.")

    shard = in_process_shard(tmp_path, fault=fault)
    await shard.post("checkout-1")
    known_better(shard, Status.STATUS_PROCESSING)
    refuses = True
    assert await etags(shard) == ['"0"', '"0"']


async def test_a_ledger_that_was_silent_is_asked_again_for_the_same_payment_a_second_later(
    tmp_path: Path,
) -> None:
    """Others may have told more than is here, and every read until then takes it back."""
    shard = in_process_shard(tmp_path)
    assert (await shard.post("checkout-1")).status == 202
    known_better(shard, Status.STATUS_PROCESSING)
    shard.ledger.silent = True
    assert await etags(shard) == ['"0"', '"0"']
    shard.ledger.silent = False
    shard.clock.advance(1.1)
    assert header(await shard.get("checkout-1"), "etag") == '"2"'
