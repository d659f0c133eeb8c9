from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.change_log import ChangeWriter, Identity
from gateway.store.interface import Delete, Operation, Put
from gateway.store.memory import Disk, MemoryStore
from gateway.store.opening import Opened, next_epoch, open_store
from tollgate.errors import CorruptionError
from tollgate.shard_layout import (
    CHANGES,
    META,
    META_ACKNOWLEDGED,
    META_EPOCH,
    META_INCARNATION,
    META_LAST_SEQUENCE,
    META_PRUNED,
    META_SHARD,
    PAYMENTS,
    encode_u64,
)
from tollgate.watermark import Watermark

INCARNATION = b"\7" * 16
FIRST, SECOND, THIRD = (opening << 32 | 0x07070707 for opening in (1, 2, 3))


def opened(disk: Disk, shard: int = 3) -> Opened:
    return open_store(MemoryStore(disk), shard, lambda count: b"\7" * count)


def written(disk: Disk, *operations: Operation) -> Disk:
    store = MemoryStore(disk)
    store.write(operations)
    store.flush()
    return disk


def disk_with_changes(count: int) -> Disk:
    """A store that was opened once and took `count` changes."""
    disk = Disk()
    opened(disk)
    writer = ChangeWriter(Identity(3, INCARNATION, FIRST))
    changes = [
        Put(CHANGES, encode_u64(n), writer.acceptance("k", n, 1, "", b"")) for n in range(1, count + 1)
    ]
    return written(disk, *changes, Put(META, META_LAST_SEQUENCE, encode_u64(count)))


def test_each_opening_raises_the_epoch_durably_and_keeps_the_incarnation() -> None:
    disk = Disk()
    for epoch in (FIRST, SECOND, THIRD):
        assert opened(disk).identity == Identity(3, INCARNATION, epoch)
        disk.lose_unsynced()


def test_an_opening_of_an_old_copy_has_an_epoch_of_its_own() -> None:
    """And what a release before counted only, 1, 2, 3, is below."""
    drawn = iter((b"\xff" * 4, b"\0" * 4, b"\1" * 4))
    epochs = [next_epoch(before, lambda _count: next(drawn)) for before in (3, FIRST, FIRST)]
    assert epochs == [1 << 32 | 0xFFFFFFFF, 2 << 32, 2 << 32 | 0x01010101]


def test_an_opening_that_loses_power_was_none() -> None:
    disk = Disk()

    def fault(call: str) -> None:
        if call == "flush":
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        open_store(MemoryStore(disk, fault), 3, lambda count: b"\1" * count)
    disk.lose_unsynced()
    assert opened(disk).identity == Identity(3, INCARNATION, FIRST)


def test_another_shards_store_is_refused() -> None:
    disk = Disk()
    opened(disk, shard=4)
    with pytest.raises(CorruptionError, match="belongs to shard 4"):
        opened(disk, shard=3)


def test_what_was_written_is_found_again() -> None:
    log = opened(written(disk_with_changes(5), Put(META, META_ACKNOWLEDGED, encode_u64(4)))).log
    assert (log.last, log.acknowledged, log.pruned) == (5, 4, 0)
    assert log.bytes_total > 0


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda d: written(d, Put(META, META_ACKNOWLEDGED, encode_u64(6))), "6 was acknowledged"),
        (lambda d: written(d, Put(META, META_PRUNED, encode_u64(1))), "pruned"),
        (lambda d: written(d, Delete(CHANGES, encode_u64(5))), "5, is missing"),
        (lambda d: written(d, Put(CHANGES, encode_u64(6), b"")), "goes on after 5"),
        (lambda d: written(d, Put(CHANGES, encode_u64(5), b"\xff")), "can't be read"),
        (lambda d: written(d, Put(CHANGES, encode_u64(5), b"")), "says that it is another"),
        (lambda d: written(d, Delete(META, META_EPOCH)), "epoch is missing"),
        (lambda d: written(d, Put(META, META_EPOCH, b"xx")), "epoch is not a number"),
        (lambda d: written(d, Delete(META, META_SHARD)), "shard is missing"),
        (lambda d: written(d, Put(META, META_INCARNATION, b"short")), "not 16 bytes"),
        (lambda d: written(d, Delete(META, META_INCARNATION)), "no identity"),
        (lambda _: written(Disk(), Put(PAYMENTS, b"k", b"v")), "no identity"),
    ],
)
def test_a_store_that_contradicts_itself_is_not_served(damage: Callable[[Disk], Disk], said: str) -> None:
    disk = damage(disk_with_changes(5))
    with pytest.raises(CorruptionError, match=said) as caught:
        opened(disk)
    assert "Operator action" in str(caught.value)
    assert not disk.unsynced, "nothing was written to it"


def reopened(disk: Disk, watermark: Watermark | None) -> Opened:
    return open_store(MemoryStore(disk), 3, lambda count: b"\7" * count, watermark)


@pytest.mark.parametrize(
    ("watermark", "said"),
    [
        (Watermark(INCARNATION, FIRST, 6), f"ends at sequence 5 of epoch {FIRST}, but was durable up to 6"),
        (Watermark(INCARNATION, SECOND, 5), f"was durable up to 5 of epoch {SECOND}"),
        (Watermark(b"\1" * 16, FIRST, 5), "another store's"),
    ],
)
def test_a_store_that_lost_what_was_durable_is_not_served(watermark: Watermark, said: str) -> None:
    disk = disk_with_changes(5)
    with pytest.raises(CorruptionError, match=said):
        reopened(disk, watermark)
    assert not disk.unsynced, "nothing was written to it"


@pytest.mark.parametrize(
    "watermark", [None, Watermark(INCARNATION, FIRST, 5), Watermark(INCARNATION, FIRST, 0)]
)
def test_a_watermark_that_is_lost_or_old_hinders_nobody(watermark: Watermark | None) -> None:
    assert reopened(disk_with_changes(5), watermark).log.last == 5


def test_an_empty_store_beside_a_watermark_is_not_taken_for_a_new_one() -> None:
    with pytest.raises(CorruptionError, match="its database is gone"):
        reopened(Disk(), Watermark(INCARNATION, 1, 5))
