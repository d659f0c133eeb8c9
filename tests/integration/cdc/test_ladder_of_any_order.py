"""Any order of commits, flushes, compactions, pruning, kills, lost tails, old copies and new volumes: on a
real RocksDB, the cursor never passes what Kafka does not have, and everything in the log arrives, in order.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from random import Random

import pytest

from tests.integration.cdc.open_shard import PARTITIONS, WINDOW, Kafka, OpenShard, TailerProcess
from tollgate.clock import FakeClock
from tollgate.errors import CorruptionError
from tollgate.shard_layout import COLUMN_FAMILIES, DATABASE_DIR, WATERMARK_FILE

# In the default run those that found each of three defects put in on purpose; LADDER_SEEDS=200 runs so many.
SEEDS = range(int(os.environ["LADDER_SEEDS"])) if "LADDER_SEEDS" in os.environ else (0, 2, 8, 13)
STEPS = 200


class Schedule:
    """A shard, its tailer and Kafka, and what happens to them, drawn from a seed."""

    def __init__(self, seed: int, folder: Path) -> None:
        """Call it on the running loop."""
        self.random = Random(seed)
        self.folder = folder
        self.clock = FakeClock()
        self.kafka = Kafka()
        self.shard = OpenShard(folder / "shard", self.clock, Random(seed))
        self.shard.data_dir.mkdir()
        self.shard.open()
        self.log: dict[int, bytes] = {}
        self.tailer = TailerProcess(self.shard, self.kafka, self.clock)

    async def run(self, steps: int) -> None:
        weights = {
            self.accept: 14,
            self.tail: 25,
            self.deliver: 25,
            self.acknowledge: 15,
            self.flush_a_memtable: 2,
            self.flush_and_compact: 2,
            self.prune: 2,
            self.restart_the_shard: 0.5,
            self.kill_the_shard: 1,
            self.lose_the_tail: 1,
            self.copy_the_folder: 1,
            self.restore_the_copy: 2,
            self.replace_the_volume: 0.3,
            self.kill_the_tailer: 2,
        }
        for act in self.random.choices(list(weights), list(weights.values()), k=steps):
            await act()
            self.check()

    # The shard

    async def accept(self) -> None:
        count = self.random.choice((1, 3, 12, 40))
        await self.shard.accept(count, large=count < 12 and self.random.random() < 0.5)
        self.log |= self.shard.log()

    async def flush_a_memtable(self) -> None:
        self.shard.flush_memtables(self.random.choice(COLUMN_FAMILIES))

    async def flush_and_compact(self) -> None:
        """The write-ahead log of all of it is gone afterwards."""
        self.shard.flush_memtables()
        self.shard.compact()

    async def prune(self) -> None:
        durable = self.shard.committer.durable
        await self.shard.prune(self.random.randint(durable.pruned, durable.acknowledged))

    async def restart_the_shard(self) -> None:
        self._become(None)

    async def kill_the_shard(self) -> None:
        self._become(self._copy())

    async def lose_the_tail(self) -> None:
        """A disk that lied, and no power: the log's end is gone, and the watermark with it. Where the shard
        refuses what is left, its folder is restored whole."""
        whole, cut = self._copy(), self.folder / "cut"
        shutil.copytree(whole, cut)
        newest = max((cut / DATABASE_DIR).glob("*.log"))
        os.truncate(newest, int(newest.stat().st_size * self.random.random()))
        (cut / WATERMARK_FILE).unlink()
        try:
            self._become(cut)
        except CorruptionError:
            self._become(whole)
        shutil.rmtree(whole, ignore_errors=True)

    async def copy_the_folder(self) -> None:
        shutil.rmtree(self.folder / "copy", ignore_errors=True)
        self._copy().rename(self.folder / "copy")

    async def restore_the_copy(self) -> None:
        """More than once: each time the shard counts its openings from there."""
        if (self.folder / "copy").exists():
            shutil.copytree(self.folder / "copy", self.folder / "restored")
            self._become(self.folder / "restored")

    async def replace_the_volume(self) -> None:
        (self.folder / "empty").mkdir()
        self._become(self.folder / "empty")

    def _copy(self) -> Path:
        self.shard.copy_to(self.folder / "killed")
        return self.folder / "killed"

    def _become(self, folder: Path | None) -> None:
        self.shard.close()
        if folder is not None:
            self.shard.become(folder)
        self.shard.open()
        self.log = self.shard.log()  # what it has lost, nobody promises any more

    # The tailer and Kafka

    async def tail(self) -> None:
        await self.tailer.step(self.random.randint(1, 3))

    async def deliver(self) -> None:
        """Partitions keep no pace with each other."""
        self.tailer.producer.deliver(self.random.randrange(PARTITIONS), self.random.randint(1, 20))

    async def acknowledge(self) -> None:
        await self.tailer.acknowledge()

    async def kill_the_tailer(self) -> None:
        """Some of what it had sent arrives, and nobody hears of it."""
        sent, count = self.random.randrange(PARTITIONS), self.random.randint(0, 10)
        self.tailer.producer.deliver(sent, count, reported=False)
        self.tailer.kill()
        self.tailer = TailerProcess(self.shard, self.kafka, self.clock)

    # What must hold

    def check(self) -> None:
        acknowledged = self.shard.committer.durable.acknowledged
        lost = [s for s, value in self.log.items() if s <= acknowledged and value not in self.kafka.has]
        assert not lost, f"{lost} are acknowledged (up to {acknowledged}) and not in Kafka"
        assert self.tailer.halted is None
        assert self.tailer.delivered.in_flight <= WINDOW

    async def come_to_rest(self) -> None:
        """Left alone, everything arrives."""
        await self.tailer.ship_everything(self.shard)
        self.check()
        for sequences in self.kafka.first_occurrences(self.log):
            assert sequences == sorted(sequences), "first occurrences are out of order"

    def close(self) -> None:
        self.tailer.kill()
        self.shard.close()


@pytest.mark.parametrize("seed", SEEDS)
async def test_the_cursor_never_passes_an_undelivered_change_and_everything_arrives(
    seed: int, tmp_path: Path
) -> None:
    schedule = Schedule(seed, tmp_path)
    try:
        await schedule.run(STEPS)
        await schedule.come_to_rest()
        assert schedule.kafka.repeats > 0, "a schedule that repeats nothing has met no failure"
    finally:
        schedule.close()
