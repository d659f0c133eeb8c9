"""Tables, ratios and goals from the runs of an experiment. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.measure.generator import PERCENTILES, Result
from benchmarks.measure.histogram import merge
from benchmarks.measure.ratios import Spread, ratios, spread, written
from benchmarks.plan import HEADLINE_CONNECTIONS, Experiment
from benchmarks.systems.catalogue import FLOOR, GO, NOOP, PINNED, PYTHON, SHARD, SHARD_NGINX
from benchmarks.systems.whole import SHIPPING


@dataclass(frozen=True)
class Run:
    """One system under one load once. CPU times are microseconds an answer."""

    system: str
    round: int
    result: Result
    idle_before: float
    server_cpu_us: float
    front_cpu_us: float

    def document(self) -> dict[str, Any]:
        return {
            "system": self.system,
            "round": self.round,
            "idle_before": round(self.idle_before, 3),
            "cpu_us": {"server": round(self.server_cpu_us, 1), "nginx": round(self.front_cpu_us, 1)},
            **self.result.document(),
        }


def per_second(run: Run) -> float:
    return run.result.per_second


def p99_ms(run: Run) -> float:
    return (run.result.latency.percentile_ns(99) or 0) / 1e6


def compare(
    runs: Iterable[Run], system: str, with_system: str, value: Callable[[Run], float] = per_second
) -> Spread | None:
    """How many times `with_system` the `system` is, pair by pair."""
    mine: dict[int, float] = {}
    other: dict[int, float] = {}
    for run in runs:
        if run.system == system:
            mine[run.round] = value(run)
        if run.system == with_system:
            other[run.round] = value(run)
    return ratios(mine, other)


_COMPARED: Final = (("x floor", FLOOR), ("x Go", GO), ("x Python", PYTHON))
_COLUMNS: Final = (
    *("system", "answers/s"),
    *(title for title, _ in _COMPARED),
    *(f"p{percent:g} ms" for percent in PERCENTILES),
    *("max", "failed", "CPU us", "nginx us", "gen. busy", "lag p99"),
)


def table(experiment: Experiment, runs: Sequence[Run]) -> str:
    """Percentiles are the medians of the rounds; max, failures and lag are over all rounds."""
    lines = [_COLUMNS]
    for system in experiment.systems:
        own = [run for run in runs if run.system == system]
        if not own:
            continue
        lag = merge(run.result.lag for run in own).percentile_ns(99)
        lines.append(
            (
                system,
                written(spread([per_second(run) for run in own]), lambda value: f"{value:,.0f}"),
                *(
                    "" if name == system else written(compare(runs, system, name), _two_digits)
                    for _, name in _COMPARED
                ),
                *(_percentile(own, percent) for percent in PERCENTILES),
                f"{max(run.result.latency.max_ns for run in own) / 1e6:.1f}",
                str(sum(run.result.failed for run in own)),
                _median(own, lambda run: run.server_cpu_us),
                _median(own, lambda run: run.front_cpu_us),
                f"{max(run.result.busy for run in own):.0%}",
                "-" if lag is None else f"{lag / 1e6:.2f}",
            )
        )
    return (
        f"{experiment.name}, {experiment.rounds} rounds of {experiment.load.seconds:g} s\n{_aligned(lines)}"
    )


def _percentile(runs: Sequence[Run], percent: float) -> str:
    values = [(run.result.latency.percentile_ns(percent) or 0) / 1e6 for run in runs]
    return written(spread(values), _two_digits)


def _median(runs: Sequence[Run], value: Callable[[Run], float]) -> str:
    seen = spread([value(run) for run in runs])
    return "-" if seen is None else f"{seen.median:.0f}"


def _two_digits(value: float) -> str:
    return f"{value:.2f}"


def _aligned(lines: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    padded = []
    for line in lines:
        first, *rest = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        padded.append("  ".join((first, *(cell.strip().rjust(len(cell)) for cell in rest))).rstrip())
    return "\n".join(padded)


@dataclass(frozen=True)
class Goal:
    """What is asked of `system` in one experiment: `value` (over the rounds) against a bound."""

    name: str
    value: Spread | None
    bound: float
    at_most: bool

    @property
    def met(self) -> bool | None:
        """None when it was not measured."""
        if self.value is None:
            return None
        return self.value.median <= self.bound if self.at_most else self.value.median >= self.bound

    def __str__(self) -> str:
        verdict = {True: "met", False: "MISSED", None: "not measured"}[self.met]
        sign = "<=" if self.at_most else ">="
        return f"{verdict:12}  {self.name} {sign} {self.bound:g}: {written(self.value, _two_digits)}"

    def document(self) -> dict[str, Any]:
        value = self.value
        seen = value and {
            "median": value.median,
            "least": value.least,
            "most": value.most,
            "pairs": value.count,
        }
        return {
            "name": self.name,
            "bound": self.bound,
            "at_most": self.at_most,
            "met": self.met,
            "value": seen,
        }


def goals(results: Mapping[Experiment, Sequence[Run]]) -> list[Goal]:
    """What the gateway has to reach, for the shard alone with nginx and with its tailer and Kafka on."""
    found = []
    for experiment, runs in results.items():
        load = experiment.load
        for system in (SHARD_NGINX, PINNED, SHIPPING):
            if system not in experiment.systems:
                continue
            own = [run for run in runs if run.system == system]
            about = f"{system}, {load.name}:"
            if experiment.part == "closed" and load.connections == HEADLINE_CONNECTIONS:
                for other, bound in ((FLOOR, 0.30), (GO, 0.70), (PYTHON, 3.0)):
                    found.append(
                        Goal(f"{about} x {other}", compare(runs, system, other), bound, at_most=False)
                    )
            if experiment.part == "open":
                ratio = compare(runs, system, GO, p99_ms)
                found.append(Goal(f"{about} p99 x {GO}'s", ratio, 1.5, at_most=True))
                found.append(
                    Goal(f"{about} failures", spread([float(run.result.failed) for run in own]), 0, True)
                )
                if load.rate == 5000:
                    found.append(Goal(f"{about} p99 ms", spread([p99_ms(run) for run in own]), 3.0, True))
            if experiment.part == "get":
                found.append(Goal(f"{about} p99 ms", spread([p99_ms(run) for run in own]), 1.0, True))
        if experiment.part == "closed" and load.connections == HEADLINE_CONNECTIONS:
            found.append(
                Goal(f"{SHARD}, {load.name}: x {NOOP}", compare(runs, SHARD, NOOP), 0.5, at_most=False)
            )
    return found
