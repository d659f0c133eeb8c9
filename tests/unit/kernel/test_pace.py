"""How long a batch waits for company."""

from __future__ import annotations

from tollgate.pace import Pace

PACE = Pace(each_s=0.002, most_s=0.05)


def test_what_comes_alone_is_followed_at_once_but_for_a_moment() -> None:
    assert PACE.pause_s(1, taken_s=0.002) == 0.0
    assert PACE.pause_s(1, taken_s=0.0005) == 0.0015


def test_a_pause_is_bounded_however_large_the_batch() -> None:
    assert PACE.pause_s(10_000, taken_s=0.0) == 0.05


def test_a_batch_that_took_long_is_followed_at_once() -> None:
    assert PACE.pause_s(10_000, taken_s=0.06) == 0.0


def test_below_its_rate_the_batches_do_not_grow_and_above_it_they_do() -> None:
    def batch_after(rate: float, taken_s: float) -> float:
        size = 1.0
        for _round in range(50):
            size = max(1.0, rate * (taken_s + PACE.pause_s(round(size), taken_s)))
        return size

    assert batch_after(rate=400, taken_s=0.002) <= 2
    assert batch_after(rate=1000, taken_s=0.002) == 50
