"""What a run of payments came to: percentiles, rates, findings; as a table for people and as JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from rich.console import Console
from rich.table import Column, Table

from tollgate.cli.pay_client import Paid
from tollgate.cli.verify_payments import Finding

_FINDINGS_SHOWN: Final = 50


@dataclass(frozen=True)
class Percentiles:
    """Milliseconds, nearest rank. None: nothing was measured."""

    p50: float | None
    p90: float | None
    p99: float | None
    max: float | None


def percentiles(seconds: Sequence[float]) -> Percentiles:
    ordered = sorted(seconds)
    if not ordered:
        return Percentiles(None, None, None, None)

    def rank(share: float) -> float:
        return round(ordered[math.ceil(share * len(ordered)) - 1] * 1000, 3)

    return Percentiles(rank(0.5), rank(0.9), rank(0.99), rank(1))


@dataclass(frozen=True)
class Report:
    payments: int
    accepted: int
    replayed: int
    retries: int
    statuses: dict[str, int]
    duration_s: float
    per_second: float
    accepted_ms: Percentiles
    ended_ms: Percentiles
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return not self.findings

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}


def make_report(paid: Sequence[Paid], duration_s: float, findings: Sequence[Finding]) -> Report:
    """Replays are counted, and left out of the times: they were not paid now."""
    fresh = [one for one in paid if not one.replayed]
    return Report(
        payments=len(paid),
        accepted=sum(one.accepted_after_s is not None for one in paid),
        replayed=len(paid) - len(fresh),
        retries=sum(one.retries for one in paid),
        statuses=dict(Counter(str(one.payment.get("status", "not accepted")) for one in paid)),
        duration_s=round(duration_s, 3),
        per_second=round(len(paid) / duration_s, 1) if duration_s else 0.0,
        accepted_ms=percentiles([one.accepted_after_s for one in fresh if one.accepted_after_s is not None]),
        ended_ms=percentiles([one.ended_after_s for one in fresh if one.ended_after_s is not None]),
        findings=tuple(findings),
    )


def print_report(report: Report, console: Console) -> None:
    latency = Table("ms", "p50", "p90", "p99", "max", title_justify="left")
    for name, values in (("to 202", report.accepted_ms), ("to the end", report.ended_ms)):
        latency.add_row(name, *(_shown(value) for value in asdict(values).values()))
    ends = ", ".join(f"{count} {status}" for status, count in sorted(report.statuses.items()))
    console.print(
        f"{report.payments} payments in {report.duration_s:.1f} s ({report.per_second:g}/s): {ends}. "
        f"{report.replayed} were replays, {report.retries} calls were tried again."
    )
    console.print(latency)
    if report.ok:
        console.print(
            "[green]Every payment is in Postgres as told, with exactly the effect it should have "
            "in the PSP's ledger.[/green]"
        )
        return
    wrong = Table(Column("payment", no_wrap=True, min_width=36), "problem", "what")
    for finding in report.findings[:_FINDINGS_SHOWN]:
        wrong.add_row(finding.checkout_id, finding.problem, finding.detail)
    console.print(wrong)
    more = len(report.findings) - _FINDINGS_SHOWN
    if more > 0:
        console.print(f"… and {more} more; --json lists them all.")
    console.print(f"[red]{len(report.findings)} findings.[/red]")


def _shown(milliseconds: float | None) -> str:
    return "–" if milliseconds is None else f"{milliseconds:.1f}"
