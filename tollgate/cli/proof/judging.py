"""All rules over all payments: what was checked, what was found. Pure; of findings so many are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tollgate.cli.proof import rules_acceptance, rules_contents, rules_effects, rules_progress, rules_versions
from tollgate.cli.proof.rule import Rule
from tollgate.cli.proof.testimony import Look, Witnessed

FINDINGS_KEPT: Final = 1_000  # of each rule; all are counted

RULES: Final[tuple[Rule, ...]] = (
    *rules_acceptance.RULES,
    *rules_effects.RULES,
    *rules_contents.RULES,
    *rules_versions.RULES,
    *rules_progress.RULES,
)


class Finding(NamedTuple):
    rule: str
    id: str  # merchant/checkout id, or the place
    detail: str


@dataclass
class Tally:
    """`checked` and `found` are complete by rule, `findings` holds the first of each rule."""

    payments: int = 0
    checked: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    def find(self, rule: str, place: str, detail: str) -> None:
        self.found[rule] += 1
        if self.found[rule] <= FINDINGS_KEPT:
            self.findings.append(Finding(rule, place, detail))

    def first(self, rule: str, limit: int) -> list[Finding]:
        return [finding for finding in self.findings if finding.rule == rule][:limit]

    def take(self, other: Tally) -> None:
        """What was found elsewhere too."""
        self.payments += other.payments
        self.checked += other.checked
        for finding in other.findings:
            self.find(*finding)
        for rule, count in other.found.items():  # those that were not kept
            self.found[rule] += count - min(count, FINDINGS_KEPT)

    @property
    def ok(self) -> bool:
        return not self.found


def judge(testimonies: Iterable[Witnessed], look: Look, tally: Tally, rules: Sequence[Rule] = RULES) -> None:
    """Adds to `tally`."""
    for testimony in testimonies:
        if testimony.begun_us < look.since_us:
            continue
        tally.payments += 1
        for rule in rules:
            if rule.applies(testimony, look):
                tally.checked[rule.name] += 1
                for detail in rule.problems(testimony, look):
                    tally.find(rule.name, testimony.key, detail)
