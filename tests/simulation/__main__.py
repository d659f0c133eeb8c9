"""`make simulate`: one seed with what it came to, or as many as are wanted, earlier runs included."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any, Final

from tests.fault.campaign import Campaign, Run
from tests.simulation.play import Played, play
from tests.simulation.shrink import shrink, told
from tests.simulation.watch import Broken

_RESULTS: Final = Path(__file__).parents[2] / "benchmarks/results/simulation.json"


@dataclass
class SimulationRun(Run):
    """`rounds` are seeds, `seconds` of CPU."""

    steps: int = 0
    payments: int = 0
    virtual_s: float = 0.0

    def add(self, played: Any) -> None:
        super().add(played)
        self.steps += played.steps
        self.payments += played.payments
        self.virtual_s = round(self.virtual_s + played.virtual_s, 1)

    @classmethod
    def total(cls, runs: list[Any]) -> str:
        failures = sum(run.failure is not None for run in runs)
        steps, payments = sum(run.steps for run in runs), sum(run.payments for run in runs)
        seeds = sum(run.rounds for run in runs)
        return f"{seeds} seeds, {steps} steps, {payments} payments, {failures} failures"


@dataclass(frozen=True)
class Round:
    seconds: float
    steps: int
    payments: int
    virtual_s: float

    def summary(self) -> str:
        return f"{self.payments:4} payments, {self.virtual_s:5.0f} s lived in {self.seconds:.1f} s"


@dataclass(frozen=True)
class Seeds:
    steps: int

    def play(self, seed: int, number: int) -> Round:
        """Seed `seed` + `number`."""
        begun = process_time()
        played = play(seed + number, self.steps)
        if played.broken is not None:
            sys.stdout.write(told(shrink(played)) + "\n")
            raise played.broken
        return Round(process_time() - begun, self.steps, played.payments, played.virtual_s)


class SeedCampaign(Campaign[SimulationRun]):
    def _options(self) -> argparse.Namespace:
        return _parsed()


def main() -> int:
    options = _parsed()
    if options.rounds is None:
        played = play(options.seed, options.steps)
        sys.stdout.write(_said(played, whole=options.trace))
        return 0 if played.broken is None else 1

    @contextmanager
    def rig(_folder: Path, _first: int) -> Iterator[Seeds]:
        yield Seeds(options.steps)

    return SeedCampaign("simulate", SimulationRun, rig, 1_000_000, (Broken,)).main()


def _said(played: Played, *, whole: bool) -> str:
    if whole:
        sys.stdout.write("\n".join(played.trace) + "\n")
    if played.broken is not None:
        return told(shrink(played)) + "\n"
    counts = ", ".join(f"{count} × {what}" for what, count in sorted(played.counts.items()))
    return (
        f"seed {played.seed}: {played.step} steps, {played.virtual_s:.0f} s lived, "
        f"{played.payments} payments, trace {played.digest[:16]}; every promise held\n{counts}\n"
    )


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rounds", type=int, help="so many seeds from --seed on, counted over runs")
    parser.add_argument("--trace", action="store_true", help="every line of what happened")
    parser.add_argument("--results", type=Path, default=_RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
