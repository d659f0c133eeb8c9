"""What campaigns of `make kill-rounds` have come to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.fault import campaign
from tests.fault.killing.rig import Round


@dataclass
class Run(campaign.Run):
    kills: dict[str, int] = field(default_factory=dict)
    accepted: int = 0
    requests_cut: int = 0
    changes: int = 0
    repeats: int = 0

    def add(self, played: Round) -> None:
        super().add(played)
        victims = Counter(victim for kill in played.kills for victim in kill.victims)
        self.kills = dict(sorted((Counter(self.kills) + victims).items()))
        self.accepted += played.accepted
        self.requests_cut += played.cut
        self.changes += played.changes
        self.repeats += played.repeats

    @classmethod
    def total(cls, runs: list[Any]) -> str:
        kills: Counter[str] = sum((Counter(run.kills) for run in runs), Counter())
        failures = sum(run.failure is not None for run in runs)
        return (
            f"{sum(run.rounds for run in runs)} rounds, "
            f"{', '.join(f'{count} kills of the {part}' for part, count in sorted(kills.items()))}, "
            f"{sum(run.accepted for run in runs)} payments accepted, "
            f"{sum(run.repeats for run in runs)} changes shipped again, {failures} failures"
        )
