"""What may be in flight: all there is room for beside a shard at rest, little beside one at work."""

from __future__ import annotations

from cdc.pace import Pace, PacePolicy

POLICY = PacePolicy(most=20_000, beside_load=2_000)


def looks(pace: Pace, count: int, *, committed: int, delivered: int, backlog: int = 1_000_000) -> list[int]:
    """`committed` and `delivered` between one look and the next."""
    windows = []
    pace.look(backlog, 0)
    for number in range(1, count + 1):
        pace.look(backlog + number * committed, number * delivered)
        windows.append(pace.window)
    return windows


def test_beside_a_shard_at_rest_a_catch_up_has_all_the_room() -> None:
    assert set(looks(Pace(POLICY), 5, committed=0, delivered=10_000)) == {20_000}


def test_beside_a_shard_at_work_it_takes_little_as_long_as_it_gains() -> None:
    pace = Pace(POLICY)
    looks(pace, 1, committed=0, delivered=5_000)
    windows = [20_000, *looks(pace, 6, committed=500, delivered=5_000)]
    assert windows[1] < windows[0]
    assert windows[-1] == 2_000
    assert windows == sorted(windows, reverse=True)


def test_a_tailer_that_falls_behind_takes_more_until_it_gains() -> None:
    pace = Pace(POLICY)
    looks(pace, 6, committed=500, delivered=5_000)
    windows = looks(pace, 5, committed=2_000, delivered=1_500)
    assert windows[-1] == 20_000


def test_what_arrives_and_leaves_at_the_same_rate_is_not_behind() -> None:
    assert looks(Pace(POLICY), 6, committed=1_000, delivered=1_000, backlog=500)[-1] == 2_000


def test_when_the_shard_rests_again_the_room_is_there_at_once() -> None:
    pace = Pace(POLICY)
    looks(pace, 6, committed=500, delivered=5_000)
    assert looks(pace, 1, committed=0, delivered=5_000) == [20_000]


def test_an_outage_of_kafka_beside_a_shard_at_work_fills_no_more_than_that() -> None:
    assert set(looks(Pace(POLICY), 20, committed=500, delivered=0)) == {2_000}
