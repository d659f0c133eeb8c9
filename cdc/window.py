"""How many changes may be in flight: all that memory allows, and after a failure one, then more with each
that arrives.

So a change that Kafka refuses is tried again alone: what follows it is not shipped with every try, into other
partitions, where each time would add another repeat. Pure.
"""

from __future__ import annotations


class Window:
    def __init__(self, most: int) -> None:
        self._most = most
        self.size = most

    @property
    def is_narrow(self) -> bool:
        return self.size < self._most

    def failed(self) -> None:
        self.size = 1

    def delivered(self, count: int) -> None:
        self.size = min(self._most, self.size + count)
