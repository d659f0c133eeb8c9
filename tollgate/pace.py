"""How long a batch waits for company: not at all when little is going on, a little when much is.

What a batch costs beside its records (a transaction, its round trips and its sync, a request to Kafka) is
paid once, so that fewer and larger ones leave more of the machine to the payments. The rule paces itself: a
batch of n is followed by the next after n times `each_s` at the soonest, reckoned from its beginning. At a
rate below 1 / `each_s` batches stay small; above it they grow until the pause is `most_s`. A batch that is
cut off by its limit is followed at once: there is company enough.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tollgate.clock import Clock


@dataclass(frozen=True, slots=True)
class Pace:
    each_s: float
    most_s: float

    def pause_s(self, count: int, taken_s: float) -> float:
        """Between the end of a batch of `count` that took so long and the beginning of the next."""
        return max(0.0, min(count * self.each_s, self.most_s) - taken_s)

    async def rest(self, count: int, begun: float, clock: Clock) -> None:
        """`begun` is the batch's beginning, on the monotonic clock."""
        pause_s = self.pause_s(count, clock.monotonic() - begun)
        if pause_s > 0.0:
            await asyncio.sleep(pause_s)
