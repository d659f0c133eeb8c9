"""What RocksDB is told, at a thousandth of its size: files come and go in seconds, and nothing grows."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cdc.source import RocksSource
from cdc.tailer import Policy, Read, Tailer
from gateway.change_log import ChangeWriter
from gateway.errors import StoreBusy
from gateway.metrics import Metrics
from gateway.store.gauges import watch_store
from gateway.store.interface import DeleteRange, Operation, Put
from gateway.store.opening import Opened, open_store
from gateway.store.rocks import RocksStore
from gateway.store.tuning import Tuning
from tests.fixtures.bell import DeafBell
from tests.fixtures.waiting import wait_until
from tollgate.clock import SystemClock
from tollgate.shard_layout import (
    CHANGES,
    DATABASE_DIR,
    META,
    META_LAST_SEQUENCE,
    PAYMENTS,
    WATERMARK_FILE,
    encode_u64,
)
from tollgate.watermark import Watermark, WatermarkWriter

SHARD = 4
KIB = 1024
TINY = Tuning(
    block_cache=64 * KIB,
    payments_memtable=64 * KIB,
    other_memtable=64 * KIB,
    wal=256 * KIB,
    level0_files=2,
    info_log=32 * KIB,
    manifest=4 * KIB,
)
BATCH = 50
PAYMENT_BYTES = 59 * 8


@dataclass
class Writer:
    """Commits as the committer does, in the order in which it does."""

    data_dir: Path
    store: RocksStore
    opened: Opened
    last: int = 0
    watermark: WatermarkWriter = field(init=False)

    def __post_init__(self) -> None:
        self.watermark = WatermarkWriter(self.data_dir / WATERMARK_FILE)
        self._changes = ChangeWriter(self.opened.identity)

    def commit(self) -> None:
        first, self.last = self.last + 1, self.last + BATCH
        puts: list[Operation] = [Put(META, META_LAST_SEQUENCE, encode_u64(self.last))]
        for sequence in range(first, self.last + 1):
            # No order among the keys, as among real ids, and nothing to compress.
            payment = b"".join(encode_u64(sequence * 0x9E3779B97F4A7C15 * n % 2**64) for n in range(1, 60))
            puts.append(Put(PAYMENTS, payment[:16], payment))
            change = self._changes.acceptance(payment[:8].hex(), sequence, 1, "", b"")
            puts.append(Put(CHANGES, encode_u64(sequence), change))
        wait_until(lambda: self._write(puts), "RocksDB takes a write again")
        self.store.flush()
        identity = self.opened.identity
        self.watermark.publish(Watermark(identity.incarnation, identity.epoch, self.last))

    def _write(self, operations: list[Operation]) -> bool:
        """Memtables this small are full again before the last ones are files."""
        try:
            self.store.write(operations)
        except StoreBusy:
            return False
        return True

    def prune(self, through: int) -> None:
        pruning = DeleteRange(CHANGES, encode_u64(1), encode_u64(through + 1))
        wait_until(lambda: self._write([pruning]), "RocksDB takes a write again")

    def files(self, pattern: str) -> list[Path]:
        return [p for p in (self.data_dir / DATABASE_DIR).iterdir() if re.fullmatch(pattern, p.name)]

    def size(self, pattern: str) -> int:
        total = 0
        for path in self.files(pattern):
            with suppress(FileNotFoundError):  # RocksDB has just deleted it
                total += path.stat().st_size
        return total


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    store = RocksStore(tmp_path / DATABASE_DIR, TINY)
    writer = Writer(tmp_path, store, open_store(store, SHARD, lambda count: b"\7" * count))
    yield writer
    writer.watermark.close()
    store.close()


def test_a_tailer_reads_on_while_files_logs_and_manifests_are_replaced_under_it(writer: Writer) -> None:
    clock, tailer = SystemClock(), Tailer(SHARD, Policy())
    source = RocksSource(writer.data_dir, clock, DeafBell())
    writer.commit()
    watermark = source.watermark()
    assert watermark is not None
    tailer.opened(source.open(), watermark, clock.monotonic())
    logs, manifests = set(), set()
    for number in range(120):
        writer.commit()
        logs |= {path.name for path in writer.files(r"\d+\.log")}
        manifests |= {path.name for path in writer.files(r"MANIFEST-\d+")}
        if number % 7 == 0:  # it falls behind, and then reads what went from the WAL into files meanwhile
            read = Read(tailer.position, writer.last)
            records = tailer.seen(read, source.read(read.after, read.up_to), clock.monotonic())
            assert [record.sequence for record in records] == list(range(read.after + 1, writer.last + 1))
            tailer.published(writer.last)
            writer.prune(tailer.position)
    source.close()
    assert len(logs) > 5
    assert len(manifests) > 2


def test_what_rocksdb_keeps_for_itself_stays_within_its_bounds(writer: Writer) -> None:
    for _ in range(4):
        for _ in range(50):
            writer.commit()
        # It acts on the write that goes beyond the bound, and flushes before it deletes.
        wait_until(lambda: writer.size(r"\d+\.log") <= 2 * TINY.wal, "the write-ahead log is short again")
    assert writer.last * PAYMENT_BYTES > 8 * TINY.wal
    assert writer.size(r"LOG.*") <= 6 * 2 * TINY.info_log
    assert writer.size(r"MANIFEST-.*") <= 3 * TINY.manifest


def test_a_merge_of_files_leaves_the_cores_to_commits_and_flushes(writer: Writer) -> None:
    for _ in range(40):
        writer.commit()
    wait_until(lambda: bool(niceness("rocksdb:low")), "a compaction has begun")
    own = os.getpriority(os.PRIO_PROCESS, 0)
    wait_until(lambda: min(niceness("rocksdb:low")) > own, "it has a lower priority")
    assert niceness("rocksdb:high") == {own}


def niceness(thread: str) -> set[int]:
    """Of this process' threads of that name."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        if (task / "comm").read_text().startswith(thread):
            found.add(os.getpriority(os.PRIO_PROCESS, int(task.name)))
    return found


def test_the_memory_and_the_files_of_the_store_are_gauges(writer: Writer) -> None:
    metrics = Metrics()
    watch_store(metrics, writer.store)
    for _ in range(40):
        writer.commit()
    for key, _ in writer.store.scan(PAYMENTS, b"", 2_000):
        writer.store.get(PAYMENTS, key)
    seen = gauges(metrics)
    assert seen["tollgate_store_payments"] == 2_000
    assert 0 < seen["tollgate_store_block_cache_bytes"] <= 2 * TINY.block_cache
    assert 0 < seen["tollgate_store_memtable_bytes"] < 2**20
    assert seen["tollgate_store_index_bytes"] > 0
    wait_until(
        lambda: gauges(metrics)["tollgate_store_file_bytes"] == writer.size(r"\d+\.sst"),
        "compaction has come to rest",
    )
    assert seen["tollgate_store_compaction_backlog_bytes"] >= 0
    writer.store.close()
    assert all(math.isnan(value) for value in gauges(metrics).values()), "the page is served all the same"


def gauges(metrics: Metrics) -> dict[str, float]:
    lines = metrics.render().decode().splitlines()
    return {name: float(value) for name, _, value in (x.partition(" ") for x in lines) if "_store_" in name}
