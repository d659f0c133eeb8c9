"""What was so a moment ago: entries that end by themselves, of which there are never more than a bound."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from tollgate.clock import Clock

V = TypeVar("V")


class Recently(Generic[V]):
    """Each entry stands for `kept_s`; beyond `count_max` the oldest goes first. No task, no timer."""

    def __init__(self, clock: Clock, kept_s: float, count_max: int) -> None:
        self._clock = clock
        self._kept_s = kept_s
        self._count_max = count_max
        self._entries: OrderedDict[str, tuple[float, V]] = OrderedDict()  # as they end

    def put(self, key: str, value: V) -> None:
        now = self._clock.monotonic()
        self._entries.pop(key, None)
        self._entries[key] = (now + self._kept_s, value)
        while len(self._entries) > self._count_max or self._oldest_ends() <= now:
            self._entries.popitem(last=False)

    def get(self, key: str) -> V | None:
        entry = self._entries.get(key)
        return entry[1] if entry is not None and entry[0] > self._clock.monotonic() else None

    def __contains__(self, key: str) -> bool:
        entry = self._entries.get(key)
        return entry is not None and entry[0] > self._clock.monotonic()

    def __len__(self) -> int:
        return len(self._entries)

    def _oldest_ends(self) -> float:
        return next(iter(self._entries.values()))[0]
