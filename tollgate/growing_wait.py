"""How long to wait before another try of what is down: a little at first, then longer, never beyond a bound.

No I/O, no clock: the owner sleeps. It begins anew with `reset`, once the try has succeeded.
"""

from __future__ import annotations


class GrowingWait:
    """Seconds, each twice the one before: `first_s`, …, `most_s`, `most_s`."""

    def __init__(self, first_s: float, most_s: float) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._next_s = first_s
        self.fresh = True  # no wait was taken since the start or the last reset: a trouble is new

    def next(self) -> float:
        wait_s = self._next_s
        self._next_s = min(wait_s * 2, self._most_s)
        self.fresh = False
        return wait_s

    def reset(self) -> None:
        self._next_s = self._first_s
        self.fresh = True
