"""Whether this shard may answer, and why not. Decided here, shown in /readyz, obeyed by the handlers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from gateway.errors import NotReady


@dataclass(frozen=True, slots=True)
class Patience:
    """How long this shard waits for a disk, in seconds. nginx waits longer than `stalled_s`."""

    stalled_s: float = 2.0
    hung_s: float = 30.0


class Verdict(Enum):
    """What the age of the commit in flight means."""

    WELL = "well"
    STALLED = "stalled"  # unready, new payments are refused, reads go on
    HUNG = "hung"  # the process ends: only a restart can help


def judge_commit(age_s: float, patience: Patience) -> Verdict:
    if age_s > patience.hung_s:
        return Verdict.HUNG
    return Verdict.STALLED if age_s > patience.stalled_s else Verdict.WELL


@dataclass(slots=True)
class Health:
    """Each field is a reason of its own; None or False is well."""

    starting: bool = True
    draining: bool = False
    stalled: bool = False
    failure: str | None = None
    refusal: str | None = None  # no room for new payments: said to them alone, the shard stays ready
    patience: Patience = Patience()

    def reason(self) -> str | None:
        """One sentence, or None when the shard is ready."""
        if self.failure is not None:
            return self.failure
        if self.stalled:
            return f"A commit has been waiting for the disk for more than {self.patience.stalled_s:g} s."
        if self.draining:
            return "The shard is stopping."
        return "The shard is starting." if self.starting else None

    def check_readable(self) -> None:
        """Raises NotReady when nothing may be read. What is on disk may be read while it stalls or stops."""
        if self.failure is not None:
            raise NotReady(self.failure)

    def check_writable(self) -> None:
        """Raises NotReady when nothing new is taken. A request that came before the stop is still taken."""
        if self.failure is not None or self.stalled:
            raise NotReady(self.reason() or "")
