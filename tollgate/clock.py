"""Time is handed in, never taken: the whole core can run on a virtual clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol


class Clock(Protocol):
    """Wall time for what is stored, monotonic time for what is waited for."""

    def now_us(self) -> int:
        """Microseconds since the Unix epoch, UTC. May step."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start. Never steps back."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now_us(self) -> int:
        return time.time_ns() // 1_000

    def monotonic(self) -> float:
        return time.monotonic()


class FakeClock:
    """A clock that moves only when told."""

    def __init__(self, now_us: int = 1_700_000_000_000_000) -> None:
        self._now_us = now_us
        self._monotonic = 0.0

    def now_us(self) -> int:
        return self._now_us

    def monotonic(self) -> float:
        return self._monotonic

    def jump(self, seconds: float) -> None:
        """The wall clock is set; no time passes."""
        self._now_us += round(seconds * 1_000_000)

    def advance(self, seconds: float) -> None:
        self._now_us += round(seconds * 1_000_000)
        self._monotonic += seconds


def rfc3339(at_us: int) -> str:
    """RFC 3339 UTC with microseconds: `2026-11-21T10:00:00.000001Z`."""
    seconds, micros = divmod(at_us, 1_000_000)
    return f"{_second(seconds)}.{micros:06d}Z"


@lru_cache(maxsize=64)  # times that are shown together are mostly of the same seconds
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
