"""Each rung of the ladder on the shard's own store: what makes the tailer take it, and that it is enough."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from rocksdict import Options, Rdict

from cdc import metrics
from tests.integration.cdc.open_shard import Kafka, OpenShard, TailerProcess
from tollgate.clock import FakeClock
from tollgate.errors import CorruptionError
from tollgate.shard_layout import CHANGES, COLUMN_FAMILIES, DATABASE_DIR, WATERMARK_FILE


@dataclass
class Bench:
    folder: Path
    clock: FakeClock
    kafka: Kafka
    shard: OpenShard
    tailer: TailerProcess

    def start_tailer(self) -> None:
        self.tailer = TailerProcess(self.shard, self.kafka, self.clock)

    async def ship_everything(self) -> None:
        await self.tailer.ship_everything(self.shard)
        assert self.kafka.has >= set(self.shard.log().values())
        assert self.tailer.halted is None

    def write_ahead_logs(self) -> set[Path]:
        return set((self.shard.data_dir / DATABASE_DIR).glob("*.log"))

    def cut_copy(self, name: str, kept: Callable[[int], int]) -> Path:
        """The folder as a kill would leave it, and of its newest write-ahead log only the beginning."""
        copy = self.folder / name
        self.shard.copy_to(copy)
        newest = max((copy / DATABASE_DIR).glob("*.log"))
        os.truncate(newest, kept(newest.stat().st_size))
        return copy

    async def step_until_halted(self) -> str:
        for _ in range(60):
            await self.tailer.step()
            self.tailer.producer.deliver_all()
            await self.tailer.acknowledge()
            if self.tailer.halted is not None:
                return self.tailer.halted
        raise AssertionError("it does not halt")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    clock, kafka = FakeClock(), Kafka()
    shard = OpenShard(tmp_path / "shard", clock, Random(20261121))
    shard.data_dir.mkdir()
    shard.open()
    bench = Bench(tmp_path, clock, kafka, shard, TailerProcess(shard, kafka, clock))
    yield bench
    bench.tailer.kill()
    bench.shard.close()


@dataclass
class Rungs:
    """How often each was taken since."""

    reopened_before: float
    asked_before: float

    @classmethod
    def now(cls) -> Rungs:
        return cls(*_counts())

    @property
    def reopened(self) -> float:
        return _counts()[0] - self.reopened_before

    @property
    def asked(self) -> float:
        return _counts()[1] - self.asked_before


def _counts() -> tuple[float, float]:
    return metrics.REOPENS.labels("gap")._value.get(), metrics.ASKED._value.get()


async def test_a_write_ahead_log_that_is_purged_before_it_was_read_costs_nothing(bench: Bench) -> None:
    rungs = Rungs.now()
    await bench.shard.accept(5)
    await bench.ship_everything()
    for _ in range(3):
        await bench.shard.accept(40)
        unread = bench.write_ahead_logs()
        bench.shard.flush_memtables()
        bench.shard.compact()
        assert unread - bench.write_ahead_logs(), "the log of what was not read is gone"
    await bench.ship_everything()
    assert (rungs.reopened, rungs.asked) == (0, 0)


async def test_a_secondary_that_cannot_be_read_is_opened_anew_and_that_is_enough(bench: Bench) -> None:
    await bench.shard.accept(5)
    await bench.ship_everything()
    rungs = Rungs.now()
    assert bench.tailer.source._db is not None
    bench.tailer.source._db.close()
    await bench.shard.accept(5)
    await bench.ship_everything()
    assert (rungs.reopened, rungs.asked) == (1, 0)


async def test_what_a_stale_secondary_does_not_see_comes_from_the_shard(bench: Bench) -> None:
    """Its write-ahead log is out of sight, and a new secondary sees no more than the old one."""
    await bench.shard.accept(5)
    await bench.ship_everything()
    rungs = Rungs.now()
    await bench.shard.accept(10)
    hidden = [path.rename(path.with_suffix(".hidden")) for path in bench.write_ahead_logs()]
    await bench.ship_everything()
    assert rungs.asked >= 1
    for path in hidden:
        path.rename(path.with_suffix(".log"))
    rungs = Rungs.now()
    await bench.shard.accept(10)
    await bench.ship_everything()
    assert rungs.asked == 0, "a secondary that sees again is read again"


async def test_a_cursor_that_moved_after_the_start_and_was_pruned_to_is_taken_from_the_shard(
    bench: Bench,
) -> None:
    """The last acknowledgement of a killed process arrives when the next one has read its cursor."""
    await bench.shard.accept(10)
    while not bench.tailer.tailer.position:
        await bench.tailer.step()
    bench.tailer.producer.deliver_all()
    late = bench.tailer.delivered.identity, bench.tailer.delivered.prefix
    bench.tailer.kill()
    bench.start_tailer()
    await bench.tailer.step()
    assert bench.tailer.tailer.identity == late[0]
    assert late[0] is not None
    await bench.shard.acknowledge(late[0], late[1])
    await bench.shard.prune(10)
    await bench.shard.accept(5)
    rungs = Rungs.now()
    await bench.tailer.ship_everything(bench.shard)
    assert rungs.asked == 1
    assert len(bench.kafka.has) == 15
    assert bench.kafka.repeats == 0


async def test_a_family_of_no_concern_that_comes_and_goes_costs_a_reopening(bench: Bench) -> None:
    """The secondary takes its manifest for corrupt then; a new one does not."""
    rungs = Rungs.now()
    await bench.shard.accept(5)
    await bench.tailer.step()
    database = bench.shard.store._db
    later = database.create_column_family("later", Options(raw_mode=True))
    later.put(b"a", b"b")
    await bench.shard.accept(5)
    later.close()
    database.drop_column_family("later")
    await bench.shard.accept(5)
    await bench.ship_everything()
    bench.tailer.kill()
    bench.start_tailer()
    await bench.shard.accept(5)
    await bench.ship_everything()
    assert (rungs.reopened, rungs.asked) == (1, 0)


async def test_a_change_log_that_is_dropped_ships_no_more_and_goes_on_from_a_restored_folder(
    bench: Bench,
) -> None:
    await bench.shard.accept(5)
    await bench.ship_everything()
    await bench.shard.accept(5)
    copy = bench.folder / "copy"
    bench.shard.copy_to(copy)
    bench.shard.close()
    families = {family: Options(raw_mode=True) for family in COLUMN_FAMILIES}
    database = Rdict(str(bench.shard.data_dir / DATABASE_DIR), column_families=families)
    database.drop_column_family(CHANGES)
    database.close()
    await bench.tailer.step(20)
    bench.tailer.producer.deliver_all()
    assert bench.tailer.halted is None, "nobody has confirmed anything"
    with pytest.raises(CorruptionError, match="is missing"):
        bench.shard.open()
    bench.shard.become(copy)
    bench.shard.open()
    await bench.ship_everything()


async def test_a_change_deleted_by_hand_halts_and_the_repaired_folder_goes_on(bench: Bench) -> None:
    await bench.shard.accept(10)
    copy = bench.folder / "copy"
    bench.shard.copy_to(copy)
    bench.shard.lose_change(7)
    reason = await bench.step_until_halted()
    assert "no readable change 7" in reason
    assert "Operator action" in reason
    assert bench.tailer.runner.not_ready_reason() == reason
    await bench.tailer.step(30)
    assert bench.shard.committer.durable.acknowledged == 6, "nothing after it is shipped, however long"
    assert len(bench.kafka.has) == 6
    bench.shard.close()
    await bench.tailer.step()
    bench.shard.become(copy)
    bench.shard.open()
    await bench.ship_everything()
    assert bench.tailer.runner.not_ready_reason() is None


@pytest.mark.parametrize("shipped", [False, True])
async def test_a_tail_lost_in_a_power_cut_gives_its_sequences_to_others_and_they_are_shipped(
    bench: Bench, shipped: bool
) -> None:
    """The watermark is as old as the last write-back: the shard starts with what there is."""
    await bench.shard.accept(10)
    await bench.ship_everything()
    bench.shard.flush_memtables()
    before = bench.shard.log()
    for _ in range(5):
        await bench.shard.accept(4)
    lost = set(bench.shard.log().values()) - set(before.values())
    if shipped:
        await bench.ship_everything()
    cut = bench.cut_copy("cut", lambda size: size // 2)
    (cut / WATERMARK_FILE).unlink()
    bench.shard.close()
    bench.shard.become(cut)
    bench.shard.open()
    last = bench.shard.committer.durable.last
    assert 10 < last < 30
    assert bench.shard.committer.durable.acknowledged <= last
    await bench.shard.accept(25)
    await bench.ship_everything()
    assert (len(bench.kafka.has) == 30 + 25) == shipped
    assert len(bench.kafka.has & lost) == (20 if shipped else last - 10)


async def test_a_tail_lost_beside_a_whole_watermark_keeps_the_shard_down_and_the_tailer_waiting(
    bench: Bench,
) -> None:
    await bench.shard.accept(10)
    await bench.ship_everything()
    await bench.shard.accept(10)
    whole = bench.folder / "whole"
    bench.shard.copy_to(whole)
    cut = bench.cut_copy("cut", lambda size: size - 400)
    bench.shard.close()
    bench.shard.become(cut)
    with pytest.raises(CorruptionError, match="payments that were acknowledged are missing"):
        bench.shard.open()
    bench.tailer.kill()
    bench.start_tailer()
    await bench.tailer.step(20)
    assert bench.tailer.halted is None
    bench.shard.become(whole)
    bench.shard.open()
    await bench.ship_everything()
