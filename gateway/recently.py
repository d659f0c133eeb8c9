"""What was done a moment ago: keys that are forgotten by themselves, never more than a bound of them."""

from __future__ import annotations

from collections import OrderedDict

from tollgate.clock import Clock


class Recently:
    """Each key stands for `kept_s`; beyond `count_max` the oldest goes first. No task, no timer."""

    def __init__(self, clock: Clock, kept_s: float, count_max: int) -> None:
        self._clock = clock
        self._kept_s = kept_s
        self._count_max = count_max
        self._ends: OrderedDict[str, float] = OrderedDict()  # as they end

    def put(self, key: str) -> None:
        now = self._clock.monotonic()
        self._ends.pop(key, None)
        self._ends[key] = now + self._kept_s
        while len(self._ends) > self._count_max or self._oldest_ends() <= now:
            self._ends.popitem(last=False)

    def __contains__(self, key: str) -> bool:
        ends = self._ends.get(key)
        return ends is not None and ends > self._clock.monotonic()

    def __len__(self) -> int:
        return len(self._ends)

    def _oldest_ends(self) -> float:
        return next(iter(self._ends.values()))
