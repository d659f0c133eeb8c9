from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.errors import CorruptionError
from tollgate.ring_file import RingFile, ShardEntry, read_ring_file, write_ring_file
from tollgate.ring_hash import Ring

NAMES = [f"127.0.0.1:{7100 + shard}" for shard in range(5)]
keys = st.from_regex(r"[A-Za-z0-9_-]{8,64}", fullmatch=True)


@given(keys)
def test_a_key_moves_only_to_or_from_the_shard_that_changes(key: str) -> None:
    before, after = Ring(NAMES[:4]), Ring(NAMES)
    assert after.owner(key) in {before.owner(key), NAMES[4]}


@given(keys, st.integers(1, 9))
def test_the_preference_starts_with_the_owner_and_never_repeats(key: str, count: int) -> None:
    ring = Ring(NAMES)
    preferred = ring.preference(key, count)
    assert preferred[0] == ring.owner(key)
    assert len(preferred) == len(set(preferred)) == min(count, len(NAMES))


@given(keys)
def test_when_the_owner_goes_the_next_preferred_owns_the_key(key: str) -> None:
    first, second = Ring(NAMES).preference(key, 2)
    assert Ring([name for name in NAMES if name != first]).owner(key) == second


def test_a_ring_is_never_empty_and_never_names_a_server_twice() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Ring([])
    with pytest.raises(ValueError, match="differ"):
        Ring(["a:1", "a:1"])


def test_a_ring_file_reads_back_as_written(tmp_path: Path) -> None:
    shards = tuple(ShardEntry(id=i, name=name, grpc=f"127.0.0.1:{7170 + i}") for i, name in enumerate(NAMES))
    ring = RingFile(version=1, next_id=5, shards=shards)
    write_ring_file(tmp_path / "ring.json", ring)
    assert read_ring_file(tmp_path / "ring.json") == ring
    assert ring.owner("checkout-0001").name == Ring(NAMES).owner("checkout-0001")


def test_a_broken_ring_file_is_said_so_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ring.json"
    path.write_text('{"version": 0}')
    with pytest.raises(CorruptionError, match="Restore it"):
        read_ring_file(path)
    assert path.read_text() == '{"version": 0}'
