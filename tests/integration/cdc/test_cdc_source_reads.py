"""Rows of a real store: never beyond what was asked for, and an error is never taken for the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdc.source import RocksSource
from tests.fixtures.bell import DeafBell
from tests.integration.cdc.tiny_shard import TinyShard
from tollgate.clock import FakeClock
from tollgate.errors import OperationalError
from tollgate.shard_layout import DATABASE_DIR

KEYS = [f"acme/checkout-{number:04}" for number in range(2_000)]


@pytest.fixture
def shard(tmp_path: Path) -> TinyShard:
    found = TinyShard(tmp_path / "shard", 0, 1)
    found.open()
    return found


def test_rows_end_where_they_were_asked_to_whatever_is_missing_before(shard: TinyShard) -> None:
    shard.commit(KEYS[:6])
    shard.lose_change(3)
    source = RocksSource(shard.data_dir, FakeClock(), DeafBell())
    source.open()
    assert [sequence for sequence, _ in source.read(0, 5)] == [1, 2, 4, 5]
    assert [sequence for sequence, _ in source.read(1, 4)] == [2, 4]
    assert [sequence for sequence, _ in source.read(2, 3)] == []
    assert [sequence for sequence, _ in source.read(4, 9)] == [5, 6]
    assert source.read(6, 9) == []
    source.close()
    shard.close()


def test_a_damaged_block_is_an_error_and_not_the_end_of_the_log(shard: TinyShard) -> None:
    shard.commit(KEYS)
    shard.flush_memtables()
    table = max((shard.data_dir / DATABASE_DIR).glob("*.sst"), key=lambda path: path.stat().st_size)
    content = bytearray(table.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = b"\0" * 64
    table.write_bytes(content)
    source = RocksSource(shard.data_dir, FakeClock(), DeafBell())
    source.open()
    with pytest.raises(OperationalError, match="reading changes after 0"):
        source.read(0, len(KEYS))
    source.close()
    shard.close()
