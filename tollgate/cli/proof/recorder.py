"""Where the readers of witnesses put what they read: records by payment, leaks, and how far they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tollgate.cli.proof.judging import Tally
from tollgate.cli.proof.leaks import LeakScan
from tollgate.cli.proof.spool import Spool
from tollgate.cli.proof.testimony import Kind

LEAK: Final = "I8 leak"
UNREADABLE: Final = "I5 unreadable"
Progress = Callable[[str, int, int], None]  # what is read, how far, of how many


class Recorder:
    """One a look."""

    def __init__(self, spool: Spool, tally: Tally, leaks: LeakScan, progress: Progress) -> None:
        self.leaks = leaks
        self.progress = progress
        self._spool = spool
        self._tally = tally

    def add(self, kind: Kind, key: str, record: tuple[Any, ...]) -> None:
        self._spool.add(kind, key, record)

    def leaked(self, leak: str, where: str, place: str) -> None:
        """`leak` as the scan named it; empty: nothing was found. Never the value itself."""
        self._tally.checked[LEAK] += 1
        if leak:
            self._tally.find(LEAK, place, f"{leak} in {where}")

    def unreadable(self, place: str, why: str) -> None:
        """A record that can't be what it must be."""
        self._tally.find(UNREADABLE, place, why)
