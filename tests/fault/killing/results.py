"""What campaigns have come to, kept in one file: counts add up over runs, each under the commit it ran on.

The file is rewritten whole after each round, so that a run that is cut off counts as far as it came.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.fault.killing.rig import Round


@dataclass
class Run:
    """A contiguous piece of a campaign, on one commit."""

    commit: str
    seed: int
    first: int
    machine: str
    rounds: int = 0
    kills: dict[str, int] = field(default_factory=dict)
    accepted: int = 0
    requests_cut: int = 0
    changes: int = 0
    repeats: int = 0
    seconds: float = 0.0
    failure: str | None = None

    def add(self, played: Round) -> None:
        self.rounds += 1
        victims = Counter(victim for kill in played.kills for victim in kill.victims)
        self.kills = dict(sorted((Counter(self.kills) + victims).items()))
        self.accepted += played.accepted
        self.requests_cut += played.cut
        self.changes += played.changes
        self.repeats += played.repeats
        self.seconds = round(self.seconds + played.seconds, 1)


@dataclass
class Results:
    path: Path
    runs: list[Run]

    @classmethod
    def load(cls, path: Path) -> Results:
        written: list[dict[str, Any]] = json.loads(path.read_text())["runs"] if path.exists() else []
        return cls(path, [Run(**run) for run in written])

    def played(self, seed: int) -> int:
        """The number of the first round of this seed that was not played yet."""
        return max((run.first + run.rounds for run in self.runs if run.seed == seed), default=0)

    def begin(self, run: Run) -> Run:
        self.runs.append(run)
        return run

    def save(self) -> None:
        document = {
            "command": "make kill-rounds",
            "runs": [asdict(run) for run in self.runs if run.rounds or run.failure],
        }
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(document, indent=1) + "\n")
        new.replace(self.path)

    def total(self) -> str:
        kills: Counter[str] = sum((Counter(run.kills) for run in self.runs), Counter())
        failures = sum(run.failure is not None for run in self.runs)
        return (
            f"{sum(run.rounds for run in self.runs)} rounds, "
            f"{', '.join(f'{count} kills of the {part}' for part, count in sorted(kills.items()))}, "
            f"{sum(run.accepted for run in self.runs)} payments accepted, "
            f"{sum(run.repeats for run in self.runs)} changes shipped again, {failures} failures"
        )
