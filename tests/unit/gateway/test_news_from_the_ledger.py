"""What the Ledger knows better is told once it is on this shard's disk."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.settings import LookUpSettings
from gateway.store.interface import Store
from tests.fixtures.shard import MERCHANT, POLL_S, HeldDisk, header, in_process_shard
from tollgate.ids import payment_key
from tollgate.v1.payment_pb2 import Payment, Status


async def flushing(disk: HeldDisk) -> None:
    async with asyncio.timeout(5):
        while not disk.pending:
            await asyncio.sleep(POLL_S)


async def test_news_from_the_ledger_are_told_once_they_are_on_disk_here(tmp_path: Path) -> None:
    """Else the next read, which sees the disk, takes them back. A slow disk is waited for, but not long."""
    disks: list[HeldDisk] = []

    def flusher(store: Store) -> HeldDisk:
        disks.append(HeldDisk(store))
        return disks[-1]

    shard = in_process_shard(tmp_path, flusher=flusher, look_ups=LookUpSettings(timeout_s=0.05))
    (disk,) = disks
    posting = asyncio.create_task(shard.post("checkout-1"))
    await flushing(disk)
    disk.complete()
    await posting
    stored = shard.committer.read(payment_key(MERCHANT, "checkout-1"))
    assert stored is not None
    news = Payment.FromString(stored)
    news.version, news.status = 2, Status.STATUS_PROCESSING
    shard.ledger.has(news)
    shard.clock.advance(30)
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
