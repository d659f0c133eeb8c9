"""The bounded hand-over between the network and the committer. No I/O, no waiting, lost in a crash.

Nothing in the ring has been promised to anyone: its waiters have no answer yet.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from gateway.errors import RingFull

T = TypeVar("T")


class Ring(Generic[T]):
    """First in, first out; bounded in items and in bytes. One thread."""

    def __init__(self, slots: int, bytes_max: int) -> None:
        self.slots = slots
        self.bytes_max = bytes_max
        self._items: deque[tuple[T, int]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def bytes(self) -> int:
        return self._bytes

    @property
    def is_full(self) -> bool:
        """Whether nothing more fits, however small."""
        return len(self._items) >= self.slots or self._bytes >= self.bytes_max

    def push(self, item: T, size_bytes: int) -> None:
        """Raises RingFull, and then keeps nothing of `item`."""
        if len(self._items) >= self.slots or self._bytes + size_bytes > self.bytes_max:
            raise RingFull("The shard has as much work waiting as it may hold. Retry with the same id.")
        self._items.append((item, size_bytes))
        self._bytes += size_bytes

    def drain(self, count_max: int) -> list[T]:
        """Takes the oldest items out, at most `count_max`, in order."""
        drained: list[T] = []
        while self._items and len(drained) < count_max:
            item, size_bytes = self._items.popleft()
            self._bytes -= size_bytes
            drained.append(item)
        return drained
