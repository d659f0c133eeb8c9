"""The micro-benchmarks' clockwork, on a clock of its own; and that every step can still be run."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from benchmarks.measure.ratios import Spread
from benchmarks.micro import cases
from benchmarks.micro.timing import Case, measure


class Clock:
    """Stands still but for what the measured work adds to it."""

    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns


def test_time_is_divided_by_calls_and_by_operations_a_call() -> None:
    clock = Clock()

    def work() -> None:
        clock.ns += 3_000

    assert measure(Case("work", work, operations=30), 5, 0.001, clock) == Spread(100, 100, 100, 5)


def test_the_median_of_the_repeats_counts() -> None:
    clock = Clock()
    costs = iter([1_000_000, 100, 100, 900, 200, 300])  # the first is the calibration

    def work() -> None:
        clock.ns += next(costs)

    assert measure(Case("work", work), 5, 0.001, clock) == Spread(200, 100, 900, 5)


def test_the_collector_is_off_while_it_is_timed_and_on_again_after() -> None:
    clock = Clock()
    seen = []

    def work() -> None:
        seen.append(gc.isenabled())
        clock.ns += 1_000_000

    measure(Case("work", work), 1, 0.001, clock)
    assert seen == [False, False]
    assert gc.isenabled()


@pytest.mark.parametrize("group", ["admission", "json", "ring", "commit", "handler"])
def test_every_step_can_be_run(group: str, tmp_path: Path) -> None:
    made = getattr(cases, group)
    for case in made(tmp_path) if group in {"commit", "handler"} else made():
        case.once()
