"""Whether the wall clock may be believed when it says that something is old enough to leave.

A clock that jumps a year ahead would empty the shard of every settled payment, and its reads would deny
them. So after a jump, and after a start that is far from the newest change, nothing leaves for its age until
the process has run for a day: time for a person, who is told, to set the clock. A shard that was only off, or
suspended, keeps things a day longer. Acceptance goes on: times are stored as the clock tells them.

Not kept over a restart: the newest change has then been stamped by the clock that jumped.
"""

from __future__ import annotations

from typing import Final

import structlog

JUMP_US: Final = 600 * 1_000_000  # between two looks; ntpd steps by far less, a slew is slower
AWAY_US: Final = 24 * 3600 * 1_000_000
PAUSE_S: Final = 24 * 3600.0

log = structlog.get_logger()


class ClockTrust:
    """Asked at each round of retention. `newest_us`: when the newest change was committed, if any was."""

    def __init__(self, newest_us: int | None, now_us: int, monotonic_s: float) -> None:
        self._offset_us = _offset_us(now_us, monotonic_s)
        self._until_s = float("-inf")
        if newest_us is not None and not newest_us - JUMP_US <= now_us <= newest_us + AWAY_US:
            self._distrust(now_us - newest_us, monotonic_s)

    def is_trusted(self, now_us: int, monotonic_s: float) -> bool:
        offset_us = _offset_us(now_us, monotonic_s)
        jump_us, self._offset_us = offset_us - self._offset_us, offset_us
        if abs(jump_us) > JUMP_US:
            self._distrust(jump_us, monotonic_s)
        return monotonic_s >= self._until_s

    def _distrust(self, jump_us: int, monotonic_s: float) -> None:
        self._until_s = monotonic_s + PAUSE_S
        log.error(
            "the clock is not where it was expected; for a day nothing leaves for its age",
            jump_s=jump_us // 1_000_000,
            next="compare it with another clock and set it",
        )


def _offset_us(now_us: int, monotonic_s: float) -> int:
    """The same at any two looks, unless the clock was set in between or the machine slept."""
    return now_us - round(monotonic_s * 1_000_000)
