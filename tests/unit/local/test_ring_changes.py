"""The ring file through additions and removals: ids, history, and what is left to do after a crash."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.errors import RejectedInput
from tollgate.local import ring_changes
from tollgate.local.ports import PortPlan
from tollgate.local.ring_changes import HISTORY_US
from tollgate.local.stack import new_ring
from tollgate.ring_file import RingFile

NOW_US = 1_800_000_000_000_000


def with_shards(count: int) -> RingFile:
    return new_ring(PortPlan(), count)


def ids(ring: RingFile) -> list[int]:
    return [shard.id for shard in ring.shards]


def one_more(ring: RingFile, now_us: int = NOW_US) -> RingFile:
    name = f"127.0.0.1:{7100 + ring.next_id}"
    return ring_changes.joined(ring_changes.joining(ring, name, "127.0.0.1:7074"), now_us)


def one_less(ring: RingFile, shard: int, now_us: int = NOW_US) -> RingFile:
    return ring_changes.ended(ring_changes.retired(ring_changes.leaving(ring, shard, now_us)))


def test_a_shard_is_on_the_ring_only_when_it_has_joined() -> None:
    before = with_shards(2)
    begun = ring_changes.joining(before, "127.0.0.1:7102", "127.0.0.1:7074")
    assert (ids(begun), begun.version, begun.history) == ([0, 1], before.version, ())
    assert [shard.id for shard in begun.running] == [0, 1, 2]
    after = ring_changes.joined(begun, NOW_US)
    assert (ids(after), after.version, after.joining) == ([0, 1, 2], before.version + 1, None)
    assert (after.history[0].shards, after.history[0].left_at_us) == (before.shards, NOW_US)


def test_a_shard_that_is_given_up_leaves_the_ring_as_it_was_and_its_id_unused() -> None:
    before = with_shards(2)
    after = ring_changes.given_up(ring_changes.joining(before, "127.0.0.1:7102", "127.0.0.1:7074"))
    assert after == before.model_copy(update={"next_id": 3})


def test_a_shard_leaves_the_ring_first_and_runs_until_nobody_asks_it() -> None:
    before = with_shards(3)
    leaving = ring_changes.leaving(before, 1, NOW_US)
    assert (ids(leaving), leaving.version, leaving.retired) == ([0, 2], before.version + 1, ())
    retired = ring_changes.retired(leaving)
    assert (retired.retired, retired.version) == ((1,), leaving.version + 1)
    assert [shard.id for shard in retired.running] == [0, 1, 2]
    after = ring_changes.ended(retired)
    assert (after.leaving, after.version) == (None, retired.version)
    assert [shard.id for shard in after.running] == [0, 2]
    assert [former.shards for former in after.history] == [before.shards]


def test_finishing_what_is_finished_changes_nothing() -> None:
    """A supervisor that was killed between a step and its note takes the step again."""
    ring = one_less(one_more(with_shards(2)), 0)
    assert ring_changes.joined(ring, NOW_US) == ring_changes.retired(ring) == ring_changes.ended(ring) == ring
    retired = ring_changes.retired(ring_changes.leaving(ring, 1, NOW_US))
    assert ring_changes.retired(retired) == retired


def test_an_id_is_never_given_twice_and_64_are_all() -> None:
    ring = with_shards(2)
    for expected in range(2, 64):
        ring = one_more(ring)
        assert ids(ring)[-1] == expected
        ring = one_less(ring, expected)
    with pytest.raises(RejectedInput, match="All 64 shard ids are used up"):
        ring_changes.joining(ring, "127.0.0.1:7164", "127.0.0.1:7074")


@pytest.mark.parametrize(("shards", "shard"), [(2, 2), (2, 63), (1, 0)])
def test_an_unknown_shard_and_the_last_one_stay(shards: int, shard: int) -> None:
    with pytest.raises(RejectedInput, match="Nothing was changed"):
        ring_changes.leaving(with_shards(shards), shard, NOW_US)


def test_a_shard_that_was_removed_can_not_be_removed_again() -> None:
    with pytest.raises(RejectedInput, match=r"no shard 1 on the ring, only 0, 2"):
        ring_changes.leaving(one_less(one_more(with_shards(2)), 1), 1, NOW_US)


def test_history_is_kept_as_long_as_shards_keep_payments() -> None:
    ring = one_more(one_more(with_shards(1), NOW_US), NOW_US + HISTORY_US - 1)
    assert [former.version for former in ring.history] == [2, 1]
    ring = one_less(ring, 2, NOW_US + HISTORY_US)
    assert [former.version for former in ring.history] == [3, 2]


@given(st.lists(st.booleans(), max_size=40))
def test_whatever_comes_and_goes_ids_ascend_and_every_former_shard_is_retired(steps: list[bool]) -> None:
    ring = with_shards(1)
    for adds in steps:
        if adds:
            ring = one_more(ring)
        elif len(ring.shards) > 1:
            ring = one_less(ring, ids(ring)[len(steps) % len(ring.shards)])
    assert ids(ring) == sorted(set(ids(ring)))
    assert {*ids(ring), *ring.retired} == set(range(ring.next_id))
    versions = [ring.version, *(former.version for former in ring.history)]
    assert versions == sorted(set(versions), reverse=True)
    rings = [ring.shards, *(former.shards for former in ring.history)]
    assert all(now != then for now, then in pairwise(rings)), "what did not change the ring is no history"
    assert RingFile.model_validate_json(ring.model_dump_json()) == ring
