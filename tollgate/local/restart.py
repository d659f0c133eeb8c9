"""When a part that died is started again: soon, ever less soon while it keeps dying, and never not at all."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RestartPolicy:
    """Doubling from `delay_s_min` to `delay_s_max`; after `healthy_after_s` of life from the start again."""

    delay_s_min: float = 0.1
    delay_s_max: float = 5.0
    healthy_after_s: float = 10.0


@dataclass
class RestartState:
    deaths_in_a_row: int = 0


def delay_before_restart(policy: RestartPolicy, state: RestartState, lived_s: float) -> float:
    """Notes a death after `lived_s` seconds and says how long to wait now."""
    if lived_s >= policy.healthy_after_s:
        state.deaths_in_a_row = 0
    doublings = min(state.deaths_in_a_row, 30)
    state.deaths_in_a_row += 1
    return min(policy.delay_s_min * float(2**doublings), policy.delay_s_max)
