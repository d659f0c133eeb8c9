"""Nanoseconds an operation: enough repetitions that the clock does not matter, several times, the median."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from benchmarks.measure.ratios import Spread, spread

_BATCH_S: Final = 0.05
REPEATS: Final = 7


@dataclass(frozen=True)
class Case:
    """`once` does `operations` of what is named."""

    name: str
    once: Callable[[], object]
    operations: int = 1


def measure(
    case: Case,
    repeats: int = REPEATS,
    batch_s: float = _BATCH_S,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Spread:
    """Nanoseconds an operation. The collector is off meanwhile, as it nearly is in a shard."""
    calls = _calibrate(case, batch_s, clock)
    taken = [_time(case, calls, clock) / (calls * case.operations) for _ in range(repeats)]
    seen = spread(taken)
    assert seen is not None
    return seen


def _calibrate(case: Case, batch_s: float, clock: Callable[[], int]) -> int:
    """How many calls take at least `batch_s`; also the warm-up."""
    calls = 1
    while _time(case, calls, clock) < batch_s * 1e9:
        calls *= 2
    return calls


def _time(case: Case, calls: int, clock: Callable[[], int]) -> int:
    enabled = gc.isenabled()
    gc.disable()
    try:
        began = clock()
        for _ in range(calls):
            case.once()
        return clock() - began
    finally:
        if enabled:
            gc.enable()
