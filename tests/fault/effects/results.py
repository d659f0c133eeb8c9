"""What campaigns of `make processor-rounds` have come to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.fault import campaign
from tests.fault.effects.rig import Round


@dataclass
class Run(campaign.Run):
    """`unheard` calls never had an answer, `late` ones had it after their lease had ended."""

    faults: dict[str, int] = field(default_factory=dict)
    moments: dict[str, int] = field(default_factory=dict)
    payments: int = 0
    effects: int = 0
    calls: int = 0
    calls_again: int = 0
    calls_unheard: int = 0
    calls_late: int = 0

    def add(self, played: Round) -> None:
        super().add(played)
        self.faults = _counted(self.faults, str(played.plan.fault))
        self.moments = _counted(self.moments, str(played.plan.moment))
        self.payments += played.payments
        self.effects += played.effects
        self.calls += played.calls["made"]
        self.calls_again += played.calls["again"]
        self.calls_unheard += played.calls["unheard"]
        self.calls_late += played.calls["late"]

    @classmethod
    def total(cls, runs: list[Any]) -> str:
        faults: Counter[str] = sum((Counter(run.faults) for run in runs), Counter())
        failures = sum(run.failure is not None for run in runs)
        return (
            f"{sum(run.rounds for run in runs)} rounds, "
            f"{', '.join(f'{count} {fault}' for fault, count in sorted(faults.items()))}; "
            f"{sum(run.payments for run in runs)} payments, {sum(run.effects for run in runs)} effects at "
            f"the PSP, {sum(run.calls_unheard + run.calls_late for run in runs)} calls in doubt, "
            f"{failures} failures"
        )


def _counted(counts: dict[str, int], name: str) -> dict[str, int]:
    return dict(sorted((Counter(counts) + Counter([name])).items()))
