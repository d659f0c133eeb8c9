"""The source where there is no store yet: it waits and touches nothing of the shard's."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cdc.bell import FileBell
from cdc.source import RocksSource
from tests.fixtures.bell import DeafBell
from tollgate.clock import FakeClock
from tollgate.errors import OperationalError
from tollgate.shard_layout import DATABASE_DIR, WATERMARK_FILE
from tollgate.watermark import Watermark, WatermarkWriter

_SOON_S = 30.0
_LONGER_THAN_A_LOOK_S = 0.1
MARK = Watermark(b"i" * 16, 1, 7)


def test_without_a_store_it_says_so_and_makes_no_folder_under_the_shards_feet(tmp_path: Path) -> None:
    source = RocksSource(tmp_path, FakeClock(), DeafBell())
    with pytest.raises(OperationalError, match="Start the shard"):
        source.open()
    assert not (tmp_path / DATABASE_DIR).exists()
    with pytest.raises(OperationalError, match="not open"):
        source.read(0, 1)


def test_the_watermark_is_none_until_there_is_one_and_again_when_it_is_gone(tmp_path: Path) -> None:
    clock = FakeClock()
    source = RocksSource(tmp_path, clock, DeafBell())
    assert source.watermark() is None
    writer = WatermarkWriter(tmp_path / WATERMARK_FILE)
    writer.publish(MARK)
    clock.advance(1)
    assert source.watermark() == MARK
    (tmp_path / WATERMARK_FILE).unlink()
    clock.advance(1)
    assert source.watermark() is None
    writer.close()


async def test_a_wait_ends_at_once_when_the_watermark_is_another_than_was_seen(tmp_path: Path) -> None:
    writer = WatermarkWriter(tmp_path / WATERMARK_FILE)
    writer.publish(MARK)
    await RocksSource(tmp_path, FakeClock(), DeafBell()).wait_for_change(None, 60.0)
    writer.close()


async def test_a_published_watermark_ends_the_wait(tmp_path: Path) -> None:
    writer = WatermarkWriter(tmp_path / WATERMARK_FILE)
    writer.publish(MARK)
    bell = FileBell()
    source = RocksSource(tmp_path, FakeClock(), bell)
    waiting = asyncio.create_task(source.wait_for_change(source.watermark(), 3_600.0))
    await asyncio.sleep(0)
    assert not waiting.done()
    writer.publish(MARK._replace(sequence=8))
    await asyncio.wait_for(waiting, _SOON_S)
    assert source.watermark() == MARK._replace(sequence=8)
    bell.close()
    writer.close()


async def test_what_is_published_between_the_look_and_the_wait_ends_it_too(tmp_path: Path) -> None:
    writer = WatermarkWriter(tmp_path / WATERMARK_FILE)
    writer.publish(MARK)
    bell = FileBell()
    bell.watch(tmp_path / WATERMARK_FILE)
    bell.clear()
    writer.publish(MARK)
    await asyncio.wait_for(bell.wait(3_600.0), _SOON_S)
    bell.close()
    writer.close()


async def test_of_a_file_that_took_the_place_of_another_the_bell_hears_too(tmp_path: Path) -> None:
    path, clock, bell = tmp_path / WATERMARK_FILE, FakeClock(), FileBell()
    WatermarkWriter(path).publish(MARK)
    source = RocksSource(tmp_path, clock, bell)
    assert source.watermark() == MARK
    path.unlink()
    writer = WatermarkWriter(path)
    writer.publish(MARK._replace(epoch=2))
    clock.advance(1)
    waiting = asyncio.create_task(source.wait_for_change(source.watermark(), 3_600.0))
    _, still = await asyncio.wait([waiting], timeout=_LONGER_THAN_A_LOOK_S)
    assert still, "who hears the file does not look at it now and then"
    writer.publish(MARK._replace(epoch=3))
    await asyncio.wait_for(waiting, _SOON_S)
    assert source.watermark() == MARK._replace(epoch=3)
    bell.close()
    writer.close()


async def test_a_bell_that_hears_nothing_waits_for_a_moment_only(tmp_path: Path) -> None:
    bell = FileBell()
    bell.watch(tmp_path / "not there")
    await asyncio.wait_for(bell.wait(3_600.0), _SOON_S)
    bell.close()
    bell.close()
