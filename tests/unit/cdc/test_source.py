"""The source where there is no store yet: it waits and touches nothing of the shard's."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdc.source import Pace, RocksSource
from tollgate.clock import FakeClock
from tollgate.errors import OperationalError
from tollgate.shard_layout import DATABASE_DIR, WATERMARK_FILE
from tollgate.watermark import Watermark, WatermarkWriter

MARK = Watermark(b"i" * 16, 1, 7)


def test_without_a_store_it_says_so_and_makes_no_folder_under_the_shards_feet(tmp_path: Path) -> None:
    source = RocksSource(tmp_path, FakeClock())
    with pytest.raises(OperationalError, match="Start the shard"):
        source.open()
    assert not (tmp_path / DATABASE_DIR).exists()
    with pytest.raises(OperationalError, match="not open"):
        source.read(0, 1)


def test_the_watermark_is_none_until_there_is_one_and_again_when_it_is_gone(tmp_path: Path) -> None:
    clock = FakeClock()
    source = RocksSource(tmp_path, clock)
    assert source.watermark() is None
    writer = WatermarkWriter(tmp_path / WATERMARK_FILE)
    writer.publish(MARK)
    clock.advance(1)
    assert source.watermark() == MARK
    (tmp_path / WATERMARK_FILE).unlink()
    clock.advance(1)
    assert source.watermark() is None
    writer.close()


def test_a_wait_ends_at_once_when_the_watermark_is_another_than_was_seen(tmp_path: Path) -> None:
    writer = WatermarkWriter(tmp_path / WATERMARK_FILE)
    writer.publish(MARK)
    pace = Pace()
    RocksSource(tmp_path, FakeClock()).wait_for_change(None, pace, 60.0)
    assert pace == Pace(), "it has not slept"
    writer.close()


def test_the_pace_slows_down_to_its_bound_and_starts_anew_after_work() -> None:
    pace = Pace()
    waits = [pace.next() for _ in range(40)]
    assert waits[0] == pace.least_s
    assert waits == sorted(waits)
    assert waits[-1] == pace.most_s
    pace.reset()
    assert pace.next() == pace.least_s
