"""A store with many payments, small: filled by the loader, killed, restarted, read by its tailer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.fill.ids import checkout_id
from benchmarks.fill.loader import Wanted, fill
from cdc.source import RocksSource
from cdc.tailer import Policy, Read, Tailer
from gateway.store.interface import Store
from gateway.store.opening import Opened, open_store
from gateway.store.rocks import RocksStore
from tests.fixtures.bell import DeafBell
from tests.fixtures.waiting import wait_until
from tollgate.clock import SystemClock
from tollgate.errors import OperationalError
from tollgate.ids import payment_key
from tollgate.local.stack_json import MERCHANT
from tollgate.shard_layout import CHANGES, DATABASE_DIR, PAYMENTS, WATERMARK_FILE, decode_u64, encode_u64
from tollgate.v1.change_pb2 import Change
from tollgate.v1.payment_pb2 import Payment, Status
from tollgate.watermark import WatermarkReader

SHARD = 5
WANTED = Wanted(payments=20_000, unshipped=5_000, seed=9, shipped_bytes_max=1024 * 1024)
_ROOT = Path(__file__).parents[3]


@contextmanager
def opened(data_dir: Path) -> Iterator[tuple[Store, Opened]]:
    store = RocksStore(data_dir / DATABASE_DIR)
    try:
        yield store, open_store(store, SHARD, lambda count: b"\0" * count)
    finally:
        store.close()


@contextmanager
def filling(data_dir: Path, payments: int) -> Iterator[subprocess.Popen[bytes]]:
    size = ("--payments", str(payments), "--unshipped", str(payments))
    which = ("--data-dir", str(data_dir), "--shard", str(SHARD), "--seed", str(WANTED.seed))
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.fill", *size, *which],
        cwd=_ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def durable(data_dir: Path) -> int:
    """What a fill has published so far; 0 before it has begun."""
    try:
        watermark = WatermarkReader(data_dir / WATERMARK_FILE).read()
    except FileNotFoundError:
        return 0
    return 0 if watermark is None else watermark.sequence


def contiguous(store: Store, after: int, last: int) -> Iterator[Change]:
    """The changes after `after`; each is where its key says, and none follows `last`."""
    expected = after + 1
    while rows := store.scan(CHANGES, encode_u64(expected), 1_000):
        for key, raw in rows:
            change = Change.FromString(raw)
            assert decode_u64(key) == change.sequence == expected
            expected += 1
            yield change
    assert expected == last + 1


async def test_all_that_was_filled_in_is_there_after_a_restart(tmp_path: Path) -> None:
    filled = await fill(tmp_path, SHARD, WANTED)
    assert filled.payments == WANTED.payments
    with opened(tmp_path) as (store, found):
        assert found.identity.epoch >> 32 == 2
        assert (found.log.last, found.log.acknowledged) == (WANTED.payments, WANTED.shipped)
        assert 0 < found.log.pruned < WANTED.shipped, "retention kept its bound, and what is unshipped"
        keys = [payment_key(MERCHANT, checkout_id(WANTED.seed, n)) for n in range(WANTED.payments)]
        for key, raw in zip(keys, store.get_many(PAYMENTS, [key.encode() for key in keys]), strict=True):
            assert raw is not None, f"{key} is gone"
            assert payment_key(MERCHANT, Payment.FromString(raw).checkout_id) == key
        settled = [Payment.FromString(store.get(PAYMENTS, key.encode()) or b"").status for key in keys[::500]]
        assert settled == [Status.STATUS_SUCCEEDED] * 30 + [Status.STATUS_PENDING] * 10
        changes = contiguous(store, found.log.pruned, found.log.last)
        assert [change.key for change in changes] == keys[found.log.pruned :]


def test_a_killed_fill_goes_on_where_it_stood_and_counts_nothing_twice(tmp_path: Path) -> None:
    with filling(tmp_path, 20_000) as process:
        wait_until(lambda: durable(tmp_path) > 4_000, "a part is filled in")
        process.kill()
        process.wait()
    with opened(tmp_path) as (_, found):
        cut_at = found.log.last
    assert 4_000 < cut_at < 20_000
    with filling(tmp_path, 20_000) as process:
        _, said = process.communicate(timeout=30)
        assert process.returncode == 0, said.decode()
    with opened(tmp_path) as (store, found):
        keys = [change.key for change in contiguous(store, 0, 20_000)]
        assert keys == [payment_key(MERCHANT, checkout_id(WANTED.seed, n)) for n in range(20_000)]
        assert found.log.acknowledged == 0


async def test_the_tailer_reads_what_was_filled_in_from_its_cursor_to_the_end(tmp_path: Path) -> None:
    await fill(tmp_path, SHARD, WANTED)
    clock, tailer = SystemClock(), Tailer(SHARD, Policy())
    source = RocksSource(tmp_path, clock, DeafBell())
    watermark = source.watermark()
    assert watermark is not None
    restart = tailer.opened(source.open(), watermark, clock.monotonic())
    assert restart is not None
    assert restart.acknowledged == WANTED.shipped
    keys = []
    while tailer.position < WANTED.payments:
        read = Read(tailer.position, min(WANTED.payments, tailer.position + 1_000))
        records = tailer.seen(read, source.read(read.after, read.up_to), clock.monotonic())
        assert records, f"what is durable is seen at the first look after {tailer.position}"
        keys += [record.key for record in records]
        tailer.published(records[-1].sequence)
    source.close()
    unshipped = range(WANTED.shipped, WANTED.payments)
    assert keys == [payment_key(MERCHANT, checkout_id(WANTED.seed, n)).encode() for n in unshipped]


async def test_another_seeds_store_is_not_filled_up(tmp_path: Path) -> None:
    await fill(tmp_path, SHARD, Wanted(payments=10, unshipped=0, seed=1))
    with pytest.raises(OperationalError, match="not filled with seed 2"):
        await fill(tmp_path, SHARD, Wanted(payments=20, unshipped=0, seed=2))
    with pytest.raises(OperationalError, match="holds 10 payments already"):
        await fill(tmp_path, SHARD, Wanted(payments=5, unshipped=0, seed=1))
