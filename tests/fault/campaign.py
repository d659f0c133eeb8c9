"""Campaigns of seeded rounds: played until as many as wanted are, earlier runs included.

What they came to is kept in one file: counts add up over runs, each under the commit it ran on. The file is
rewritten whole after each round, so that a run that is cut off counts as far as it came. A campaign stops at
the first broken promise and keeps the folder then, with every log in it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from benchmarks.measure import machine

_RESULTS = Path(__file__).parents[2] / "benchmarks/results"


@dataclass
class Run:
    """A contiguous piece of a campaign, on one commit."""

    commit: str
    seed: int
    first: int
    machine: str
    rounds: int = 0
    seconds: float = 0.0
    failure: str | None = None

    def add(self, played: Any) -> None:
        """One more round."""
        self.rounds += 1
        self.seconds = round(self.seconds + played.seconds, 1)

    @classmethod
    def total(cls, runs: list[Any]) -> str:
        failures = sum(run.failure is not None for run in runs)
        return f"{sum(run.rounds for run in runs)} rounds, {failures} failures"


R = TypeVar("R", bound=Run)


@dataclass
class Results(Generic[R]):
    command: str
    path: Path
    kind: type[R]
    runs: list[R]

    @classmethod
    def load(cls, command: str, path: Path, kind: type[R]) -> Results[R]:
        written: list[dict[str, Any]] = json.loads(path.read_text())["runs"] if path.exists() else []
        return cls(command, path, kind, [kind(**run) for run in written])

    def played(self, seed: int) -> int:
        """The number of the first round of this seed that was not played yet."""
        return max((run.first + run.rounds for run in self.runs if run.seed == seed), default=0)

    def begin(self, run: R) -> R:
        self.runs.append(run)
        return run

    def save(self) -> None:
        document = {
            "command": self.command,
            "runs": [asdict(run) for run in self.runs if run.rounds or run.failure],
        }
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(document, indent=1) + "\n")
        new.replace(self.path)

    def total(self) -> str:
        return self.kind.total(self.runs)


class Playable(Protocol):
    def play(self, seed: int, number: int) -> Any:
        """One round. Raises one of the campaign's errors when a promise is broken."""


@dataclass(frozen=True)
class Campaign(Generic[R]):
    """`rig` is given a folder and the number of the first round; after `rounds_a_rig` there is a new one."""

    name: str
    kind: type[R]
    rig: Callable[[Path, int], AbstractContextManager[Playable]]
    rounds_a_rig: int
    broken: tuple[type[Exception], ...]

    def main(self) -> int:
        options = self._options()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        results = Results.load(f"make {self.name}", options.results, self.kind)
        while (first := results.played(options.seed)) < options.rounds:
            end = min((first // self.rounds_a_rig + 1) * self.rounds_a_rig, options.rounds)
            if not self._play(results, options, first, end):
                return 1
        _say(f"all runs in {options.results.name}: {results.total()}")
        return 0

    def _play(self, results: Results[R], options: argparse.Namespace, first: int, end: int) -> bool:
        here = machine.describe()
        commit = str(here["commit"]) + ("+" if here["uncommitted"] else "")
        run = results.begin(self.kind(commit, options.seed, first, f"{here['cores']} x {here['cpu']}"))
        folder = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
        try:
            with self.rig(folder, first) as rig:
                for number in range(first, end):
                    played = rig.play(options.seed, number)
                    run.add(played)
                    results.save()
                    _say(f"{number + 1:5}/{options.rounds} {played.summary()}")
        except self.broken as failure:
            run.failure = f"round {first + run.rounds}: {failure}"
            results.save()
            _say(f"{run.failure}\nRead the logs in {folder}. The same command plays this round again.")
            return False
        except (KeyboardInterrupt, SystemExit):
            shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)
        return True

    def _options(self) -> argparse.Namespace:
        parser = argparse.ArgumentParser(prog=f"make {self.name}", description=__doc__)
        parser.add_argument("--rounds", type=int, default=300)
        parser.add_argument("--seed", type=int, default=1)
        parser.add_argument("--results", type=Path, default=_RESULTS / f"{self.name}.json")
        return parser.parse_args()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
