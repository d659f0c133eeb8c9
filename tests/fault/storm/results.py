"""What storms of `make campaign` have come to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.fault import campaign
from tests.fault.storm.report import Round, allowed_of


@dataclass
class Run(campaign.Run):
    """`seconds` are those of the storms themselves, without starting, coming to rest and verifying."""

    faults: dict[str, int] = field(default_factory=dict)
    faults_that_met_nothing: int = 0
    payments: int = 0
    requests: int = 0
    unanswered: int = 0
    allowed: dict[str, int] = field(default_factory=dict)  # rules broken that may be, how often
    mutation: str | None = None

    def add(self, played: Round) -> None:
        super().add(played)
        struck = Counter(str(one.fault.kind) for one in played.struck)
        self.faults = dict(sorted((Counter(self.faults) + struck).items()))
        self.allowed = dict(sorted((Counter(self.allowed) + Counter(allowed_of(played))).items()))
        self.faults_that_met_nothing += sum(not one.met for one in played.struck)
        self.payments += len(played.told.accepted)
        self.requests += played.told.answers.total()
        self.unanswered += sum(
            count for what, count in played.told.answers.items() if what.endswith("no answer")
        )

    @classmethod
    def total(cls, runs: list[Any]) -> str:
        faults: Counter[str] = sum((Counter(run.faults) for run in runs), Counter())
        failures = sum(run.failure is not None for run in runs)
        return (
            f"{sum(run.seconds for run in runs) / 60:.1f} minutes, {faults.total()} faults "
            f"({', '.join(f'{count} {kind}' for kind, count in sorted(faults.items()))}), "
            f"{sum(run.payments for run in runs)} payments accepted, "
            f"{sum(run.requests for run in runs)} requests, {failures} failures"
        )
