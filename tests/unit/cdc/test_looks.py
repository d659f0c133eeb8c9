"""A fast shard's changes are looked for soon, a slow one's late, and waiting has its bounds."""

from __future__ import annotations

import pytest

from cdc.looks import Looks


@pytest.mark.parametrize(
    ("rate", "wait_s"),
    [(5, 0.050), (800, 0.050), (2_000, 0.030), (3_000, 0.020), (5_000, 0.015), (50_000, 0.015)],
)
def test_looks_follow_each_other_as_fast_as_they_are_worth_it(rate: int, wait_s: float) -> None:
    looks, now = Looks(), 100.0
    for _ in range(20):
        elapsed = max(looks.next_at - now, 0.0) or 1.0
        now += elapsed
        looks.found(max(1, round(elapsed * rate)), now, awaited=False)
    assert looks.next_at - now == pytest.approx(wait_s, rel=0.1)


def test_the_first_change_after_a_pause_is_waited_for_no_longer_than_any() -> None:
    looks = Looks()
    looks.found(60, 1.0, awaited=False)
    looks.found(1, 3_600.0, awaited=False)
    assert looks.next_at == pytest.approx(3_600.05)


def test_requests_that_wait_are_looked_after_each_millisecond() -> None:
    looks = Looks()
    looks.found(3, 5.0, awaited=True)
    assert looks.next_at == pytest.approx(5.001)
