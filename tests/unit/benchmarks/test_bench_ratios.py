"""Ratios are of pairs within a round; what has no partner makes none."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from benchmarks.measure.generator import Load, Result
from benchmarks.measure.histogram import Histogram
from benchmarks.measure.ratios import Spread, ratios, spread, written
from benchmarks.plan import Experiment, Wishes, experiments
from benchmarks.report import Goal, Run, compare, goals, p99_ms, table
from benchmarks.systems.catalogue import FLOOR, GO, NOOP, PYTHON, SHARD, SHARD_NGINX

LOAD = Load("post", 32, 1.0)
EMPTY = Histogram()


def result(count: int, *, refused: int = 0, at_ns: int = 100) -> Result:
    """`count` accepted and `refused` refused within one second."""
    return Result(
        started=count + refused,
        completed=count + refused,
        measured_s=1.0,
        busy_s=0.1,
        cpu_s=0.1,
        waited=0,
        unsent=0,
        unanswered=0,
        reconnects=0,
        statuses={"202": count},
        failures={"closed": 0, "mismatched": 0},
        post=Histogram(((at_ns, count),), at_ns) if count else EMPTY,
        get=EMPTY,
        other=Histogram(((at_ns, refused),), at_ns) if refused else EMPTY,
        lag=EMPTY,
    )


def runs(system: str, *counts: int) -> list[Run]:
    return [Run(system, number, result(count), 1.0, 10.0, 5.0) for number, count in enumerate(counts)]


def test_the_ratio_is_the_median_of_ratios_and_not_the_ratio_of_medians() -> None:
    # The machine was slow for the first system in one round and for the other in another.
    assert ratios({0: 10, 1: 20, 2: 30}, {0: 100, 1: 100, 2: 60}) == Spread(0.2, 0.1, 0.5, 3)


def test_a_round_that_one_of_both_lacks_makes_no_pair() -> None:
    assert ratios({0: 10, 2: 30}, {0: 20, 1: 5}) == Spread(0.5, 0.5, 0.5, 1)


def test_a_denominator_of_zero_makes_no_pair() -> None:
    assert ratios({0: 10}, {0: 0}) is None


def test_an_even_number_of_values_has_its_median_between_the_middle_two() -> None:
    assert spread([1, 2, 4, 9]) == Spread(3, 1, 9, 4)


def test_nothing_has_no_spread() -> None:
    assert spread([]) is None
    assert written(None, str) == "-"


def test_systems_are_compared_round_by_round() -> None:
    both = runs(SHARD, 50, 10) + runs(NOOP, 100, 100)
    assert compare(both, SHARD, NOOP) == Spread(0.3, 0.1, 0.5, 2)


def test_refusals_are_no_throughput() -> None:
    assert result(100, refused=300).per_second == 100


def test_refusals_and_losses_are_in_the_latency() -> None:
    assert result(100, refused=300).latency.count == 400


def test_a_goal_that_was_not_measured_is_not_met() -> None:
    goal = Goal("speed", None, 1, at_most=True)
    assert goal.met is None
    assert "not measured" in str(goal)


def test_a_goal_is_judged_by_its_median() -> None:
    assert Goal("speed", spread([0.1, 0.3, 0.9]), 0.3, at_most=False).met
    assert not Goal("p99", spread([1.0, 3.1, 9.0]), 3.0, at_most=True).met


def test_the_headline_goals_are_set_on_the_shard_through_nginx() -> None:
    systems = (FLOOR, NOOP, SHARD, SHARD_NGINX, GO, PYTHON)
    experiment = Experiment("closed", LOAD, systems, 1)
    seen = [
        run
        for name, count in zip(systems, (100, 80, 50, 35, 40, 10), strict=True)
        for run in runs(name, count)
    ]
    found = {goal.name.partition("connections: ")[2]: goal.met for goal in goals({experiment: seen})}
    assert found == {f"x {FLOOR}": True, f"x {GO}": True, f"x {PYTHON}": True, f"x {NOOP}": True}


def test_a_failed_request_in_an_open_loop_misses_a_goal() -> None:
    experiment = Experiment("open", replace(LOAD, rate=2000.0), (SHARD_NGINX, GO), 1)
    broken = [Run(SHARD_NGINX, 0, result(100, refused=1), 1.0, 0, 0), *runs(GO, 100)]
    missed = [goal.name for goal in goals({experiment: broken}) if goal.met is False]
    assert missed == [f"{SHARD_NGINX}, POST, 2000/s: failures"]


def test_p99_is_of_everything_that_was_due() -> None:
    slow = replace(result(98), other=Histogram(((120, 2),), 120))
    assert p99_ms(Run(SHARD, 0, slow, 1.0, 0, 0)) == pytest.approx(120 / 1e6)


def test_a_table_names_every_system_that_ran() -> None:
    experiment = Experiment("closed", LOAD, (FLOOR, SHARD), 2)
    text = table(experiment, runs(FLOOR, 100, 100) + runs(SHARD, 40, 60))
    assert FLOOR in text
    assert "0.50 (0.40-0.60)" in text


def test_every_system_runs_once_a_round_in_an_order_that_changes() -> None:
    experiment = Experiment("closed", LOAD, (FLOOR, NOOP, SHARD, GO), 20)
    order = list(experiment.order(random.Random(1)))
    rounds = [[name for number, name in order if number == wanted] for wanted in range(20)]
    assert all(sorted(names) == sorted(experiment.systems) for names in rounds)
    assert len({tuple(names) for names in rounds}) > 1


def test_what_is_not_there_is_left_out_of_the_plan() -> None:
    wishes = Wishes(("closed", "get"), 7, 3, 2.0, (1, 32), (2000.0,))
    planned = experiments(wishes, [FLOOR, SHARD_NGINX])
    assert [(e.name, e.systems, e.rounds) for e in planned] == [
        ("POST, 1 connections", (FLOOR, SHARD_NGINX), 3),
        ("POST, 32 connections", (FLOOR, SHARD_NGINX), 7),
        ("GET, 5000/s", (FLOOR, SHARD_NGINX), 7),
    ]
