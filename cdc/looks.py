"""When to look at the log again after a look that found all there was. Pure.

A look costs Kafka the same whether it brings each partition one change or fifty, and the shard's own syncs
wait behind Kafka's. So the next one waits until as many changes have come as are worth it, at the rate that
the last one found: a fast shard's soon, a slow one's late, and what comes first after a pause goes at once.
"""

from __future__ import annotations

from typing import Final

_WORTH_A_LOOK: Final = 60  # changes
_EVERY_S_MIN: Final = 0.015
_EVERY_S_MAX: Final = 0.050
_AWAITED_S: Final = 0.001  # where requests wait for what is read (ack=replicated)


class Looks:
    """`now` is monotonic seconds."""

    def __init__(self) -> None:
        self._last = 0.0
        self.next_at = 0.0

    def found(self, count: int, now: float, *, awaited: bool) -> None:
        """The look at `now` brought all that there was, `count` changes, 1 or more."""
        filled_s = (now - self._last) * _WORTH_A_LOOK / count
        wait_s = _AWAITED_S if awaited else min(max(filled_s, _EVERY_S_MIN), _EVERY_S_MAX)
        self._last = now
        self.next_at = now + wait_s
