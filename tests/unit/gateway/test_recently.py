from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.recently import Recently
from tollgate.clock import FakeClock

KEPT_S, COUNT_MAX = 10, 3


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 6)), max_size=40))
def test_an_entry_stands_for_its_time_unless_newer_ones_need_its_place(steps: list[tuple[str, int]]) -> None:
    clock = FakeClock()
    recently: Recently[int] = Recently(clock, KEPT_S, COUNT_MAX)
    model: dict[str, tuple[int, int]] = {}  # key → (second, value), the latest last
    now = 0
    for number, (key, seconds) in enumerate(steps):
        now += seconds
        clock.advance(seconds)
        recently.put(key, number)
        model.pop(key, None)
        model[key] = (now, number)
        model = dict(list(model.items())[-COUNT_MAX:])
        for asked in "abcde":
            stands = asked in model and now - model[asked][0] < KEPT_S
            assert recently.get(asked) == (model[asked][1] if stands else None)
            assert (asked in recently) == stands
        assert len(recently) == sum(now - since < KEPT_S for since, _ in model.values()) <= COUNT_MAX
