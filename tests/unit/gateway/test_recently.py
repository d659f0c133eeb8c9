from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.recently import Recently
from tollgate.clock import FakeClock

KEPT_S, COUNT_MAX = 10, 3


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 6)), max_size=40))
def test_a_key_stands_for_its_time_unless_newer_ones_need_its_place(steps: list[tuple[str, int]]) -> None:
    clock = FakeClock()
    recently = Recently(clock, KEPT_S, COUNT_MAX)
    model: dict[str, int] = {}  # key → second, the latest last
    now = 0
    for key, seconds in steps:
        now += seconds
        clock.advance(seconds)
        recently.put(key)
        model.pop(key, None)
        model[key] = now
        model = dict(list(model.items())[-COUNT_MAX:])
        for asked in "abcde":
            assert (asked in recently) == (asked in model and now - model[asked] < KEPT_S)
        assert len(recently) == sum(now - since < KEPT_S for since in model.values()) <= COUNT_MAX
