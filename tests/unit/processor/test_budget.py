"""What a reservation allows: pure arithmetic of slots."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.budget import SLOT_OPEN_S, BudgetPolicy, SharedBudget, slots_from
from tollgate.clock import FakeClock

RATES = st.integers(1, 1000)


@given(RATES, st.integers(0, 50), st.lists(st.floats(0, 1), min_size=2, max_size=2))
def test_no_second_holds_more_calls_than_the_budget_however_they_lie_in_their_slots(
    rate: int, first: int, places: list[float]
) -> None:
    interval_s = BudgetPolicy(rate, 7.5).interval_s
    early, late = (
        (first + number) * interval_s + place * SLOT_OPEN_S
        for number, place in zip((0, rate), (max(places), min(places)), strict=True)
    )
    assert late - early >= 1.0 - 1e-9


@given(
    begun=st.floats(0, 1000),
    took=st.floats(0, 0.3),
    looked=st.floats(0, 1),
    first_in_s=st.floats(0, 8),
    count=st.integers(1, 25),
)
def test_whenever_postgres_looked_at_its_clock_a_call_is_never_before_its_slot_nor_after_its_end(
    begun: float, took: float, looked: float, first_in_s: float, count: int
) -> None:
    """`looked` is where between asking and hearing Postgres read the time."""
    ended, looked_at = begun + took, begun + looked * took
    slots = slots_from(begun, ended, first_in_s, count, 0.044)
    assert len(slots) == count
    for number, slot in enumerate(slots):
        true_opening = looked_at + first_in_s + number * 0.044
        assert slot.opens >= true_opening - 1e-9
        assert slot.closes <= true_opening + SLOT_OPEN_S + 1e-9


def test_a_reservation_that_took_longer_than_a_slot_is_open_leaves_no_time_to_send() -> None:
    (slot,) = slots_from(begun=10.0, ended=10.2, first_in_s=0.0, count=1, interval_s=0.55)
    assert slot.opens > slot.closes


@pytest.mark.parametrize(("rate", "batch", "interval_s"), [(0.5, 1, 2.2), (2, 1, 0.55), (100, 25, 0.011)])
def test_a_reservation_takes_a_quarter_second_of_the_budget_and_at_least_one_call(
    rate: float, batch: int, interval_s: float
) -> None:
    policy = BudgetPolicy(rate, horizon_s=7.5)
    assert policy.batch_max == batch
    assert policy.interval_s == pytest.approx(interval_s)
    assert policy.ahead_max_s == pytest.approx(7.5 + batch * interval_s)


async def test_more_than_a_reservation_s_worth_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = SharedBudget(None, "simulator", BudgetPolicy(2, 7.5), FakeClock())  # type: ignore[arg-type]
    for count in (0, 2):
        with pytest.raises(ValueError, match="slots"):
            await budget.reserve(count)
