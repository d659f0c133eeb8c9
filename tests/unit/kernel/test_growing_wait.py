"""The growing wait."""

from __future__ import annotations

from tollgate.growing_wait import GrowingWait


def test_each_wait_is_twice_the_one_before_up_to_the_bound() -> None:
    wait = GrowingWait(0.1, 0.7)
    assert [wait.next() for _ in range(5)] == [0.1, 0.2, 0.4, 0.7, 0.7]


def test_after_a_success_it_begins_anew_and_the_next_trouble_is_new() -> None:
    wait = GrowingWait(0.1, 0.7)
    fresh = [wait.fresh]
    wait.next()
    wait.next()
    fresh.append(wait.fresh)
    wait.reset()
    fresh.append(wait.fresh)
    assert fresh == [True, False, True]
    assert wait.next() == 0.1
