"""What was injected and what it met, what the load came to, what was found: as a table and as JSON. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.fault.storm.plan import Fault, Kind
from tests.fault.storm.shoppers import Told
from tests.fault.storm.strikes import Struck

Verdict = dict[str, Any]  # what `tollgate verify --json` prints

# Reported, and no failure: a dead shard's payments are read from the Ledger, and from the shard itself once
# it is back. With the Ledger away then it can't know better, and reads go on all the same (I5: who consumes
# versions ignores what is not newer).
_ALLOWED: Final = frozenset({"I5 version went back", "I5 left its end"})
_DATED_BY_PROCESSORS: Final = "I5 status order"


@dataclass(frozen=True)
class Round:
    """What one storm came to. `problems` is empty: else it is raised as Broken."""

    seed: int
    number: int
    plan: Sequence[Fault]
    struck: Sequence[Struck]
    told: Told
    seconds: float
    rest_s: float
    verdict: Verdict = field(default_factory=dict)
    problems: Sequence[str] = ()

    def summary(self) -> str:
        told = self.told
        return (
            f"storm of {self.seconds:.0f} s: {len(self.struck)} faults, {len(told.accepted)} accepted, "
            f"{told.answers.total()} requests; at rest after {self.rest_s:.0f} s"
        )


def findings_of(verdict: Verdict, struck: Sequence[Struck], *, allowed: bool = False) -> list[str]:
    """One line for each rule that was broken and is not allowed to be; or for those that are."""
    may_be_broken = _allowed_after(struck)
    return [
        f"verify: {name}: {rule['found']} of {rule['checked']}, {rule['first']}"
        for name, rule in verdict.get("rules", {}).items()
        if rule["found"] and (name in may_be_broken) is allowed
    ]


def allowed_of(played: Round) -> dict[str, int]:
    """How often each rule was broken that may be."""
    rules = played.verdict.get("rules", {})
    return {
        name: rules[name]["found"]
        for name in sorted(_allowed_after(played.struck) & set(rules))
        if rules[name]["found"]
    }


def _allowed_after(struck: Sequence[Struck]) -> frozenset[str]:
    clocks = [one.fault.target for one in struck if one.fault.kind is Kind.CLOCK]
    is_misdated = any(target.startswith("processor-") for target in clocks)
    return _ALLOWED | ({_DATED_BY_PROCESSORS} if is_misdated else set())


def document(played: Round) -> dict[str, Any]:
    told = played.told
    return {
        "seed": played.seed,
        "number": played.number,
        "seconds": played.seconds,
        "rest_s": played.rest_s,
        "problems": list(played.problems),
        "faults": [one.document() for one in played.struck],
        "not_struck": [str(fault) for fault in _not_struck(played)],
        "load": {
            "begun": told.payments,
            "held_back": told.held_back,
            "accepted": len(told.accepted),
            "payers_on_the_page": told.pages,
            "gave_up": told.gave_up,
            "answers": dict(sorted(told.answers.items())),
            "accepted_after_s": _spread(told.waits),
        },
        "verify": played.verdict,
    }


def table(played: Round) -> str:
    told, waits = played.told, _spread(played.told.waits)
    lines = [
        f"seed {played.seed}, number {played.number}, {played.seconds:g} s",
        "",
        "   at s  until  under way  fault",
    ]
    lines += [
        f"{one.at_s:7.2f} {one.until_s:6.1f}  {one.under_way:9}  {one.fault!s:52} {one.met or 'met nothing'}"
        for one in played.struck
    ]
    lines += [
        "",
        f"{told.payments} checkouts begun, {told.held_back} held back, {len(told.accepted)} accepted",
    ]
    lines += [f"accepted after {', '.join(f'{name} {seconds:g} s' for name, seconds in waits.items())}"]
    lines += [f"{count:7} {what}" for what, count in sorted(told.answers.items())]
    lines += ["", f"at rest {played.rest_s:g} s after the storm"]
    lines += [f"allowed: {one[:200]}" for one in findings_of(played.verdict, played.struck, allowed=True)]
    lines += [f"FOUND: {problem}" for problem in played.problems] or ["nothing was found"]
    return "\n".join(lines) + "\n"


def _not_struck(played: Round) -> list[Fault]:
    struck = [one.fault for one in played.struck]
    return [fault for fault in played.plan if fault not in struck]


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    if not ordered:
        return {}
    places = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {
        name: round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)
        for name, share in places.items()
    }
