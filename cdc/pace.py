"""How much may be in flight: as much as there is room for while the shard rests, little while it commits.

What is in flight to a Kafka on the same machine is what the shard's own fsyncs wait behind. So a tailer that
is behind and gains on a shard at work halves what it has in flight, down to a bound; one that does not gain
doubles it. While nothing is delivered at all, more in flight would help nobody. Pure; looks a few times a
second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_GAINS: Final = 2  # times as many delivered as committed


@dataclass(frozen=True)
class PacePolicy:
    """Records in flight, at most: ever, and beside a shard at work."""

    most: int
    beside_load: int


class Pace:
    def __init__(self, policy: PacePolicy) -> None:
        self._policy = policy
        self._seen = (0, 0)
        self.window = policy.beside_load

    def look(self, committed: int, delivered: int) -> None:
        """The last sequence that is durable, and the last that is delivered, as they are now."""
        more_committed, more_delivered = committed - self._seen[0], delivered - self._seen[1]
        self._seen = committed, delivered
        if more_committed == 0:
            self.window = self._policy.most
        elif more_delivered >= _GAINS * more_committed or committed - delivered < self.window:
            self.window = max(self._policy.beside_load, self.window // 2)
        elif more_delivered:
            self.window = min(self._policy.most, self.window * 2)
