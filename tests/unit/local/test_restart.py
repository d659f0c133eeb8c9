"""The pause before a restart: bounded, growing, forgotten after a healthy life."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tollgate.local.restart import RestartPolicy, RestartState, delay_before_restart

POLICY = RestartPolicy()


@given(st.lists(st.floats(0, 1000)))
def test_every_pause_is_within_bounds_and_a_healthy_life_makes_the_next_one_short(lives: list[float]) -> None:
    state = RestartState()
    for lived_s in lives:
        delay_s = delay_before_restart(POLICY, state, lived_s)
        assert POLICY.delay_s_min <= delay_s <= POLICY.delay_s_max
        if lived_s >= POLICY.healthy_after_s:
            assert delay_s == POLICY.delay_s_min


def test_a_part_that_keeps_dying_is_started_ever_less_often_and_never_given_up() -> None:
    state = RestartState()
    delays = [delay_before_restart(POLICY, state, 0.5) for _ in range(2000)]
    assert delays[:7] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    assert set(delays[7:]) == {5.0}
