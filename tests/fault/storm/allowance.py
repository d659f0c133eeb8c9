"""Whether the PSP was called more often than its budget allows, by its own ledger. Pure.

A second in which everything stood still is none of the processors': what they had sent in time arrives late
and together. So windows are of several seconds, and what stalls, freezes and slow wires can have held back is
allowed on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

WINDOW_S: Final = 10.0
_HELD_BACK_S: Final = 3.0  # the time-out of a call, and a busy machine


def calls_too_many(calls: Sequence[dict[str, Any]], per_second: float) -> list[str]:
    """The worst window, when it has more calls than `per_second` allows; empty when none has."""
    times = sorted(datetime.fromisoformat(call["at"]).timestamp() for call in calls)
    most = per_second * (WINDOW_S + _HELD_BACK_S)
    worst, worst_at, first = 0, 0.0, 0
    for last, at in enumerate(times):
        while times[first] <= at - WINDOW_S:
            first += 1
        if last - first + 1 > worst:
            worst, worst_at = last - first + 1, times[first]
    if worst <= most:
        return []
    since = datetime.fromtimestamp(worst_at).astimezone().isoformat()
    return [f"budget: {worst} calls to the PSP in {WINDOW_S:g} s from {since}, of {per_second:g} a second"]
