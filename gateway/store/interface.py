"""What the committer asks of a store, and what a store promises: one contract suite for every one.

1. `write` applies all operations or none. It is seen by later reads at once, but survives a power cut only
   after a `flush` that began after it has returned.
2. What a power cut takes is a suffix: if a write is gone, so is every later one.
3. `write` raises StoreBusy when nothing was written and the store is well; StoreFailed for anything else that
   went wrong, and then nothing is known about that write.
4. `flush` blocks on the disk and may run on another thread than the rest; the rest belongs to one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Put(NamedTuple):
    family: str
    key: bytes
    value: bytes


class Delete(NamedTuple):
    family: str
    key: bytes


class DeleteRange(NamedTuple):
    """Every key from `begin` up to but not including `end`."""

    family: str
    begin: bytes
    end: bytes


Operation = Put | Delete | DeleteRange


class Store(Protocol):
    def get(self, family: str, key: bytes) -> bytes | None: ...

    def get_many(self, family: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """In the order of `keys`."""
        ...

    def scan(self, family: str, start: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """At most `limit` records from `start` on, ascending by key."""
        ...

    def write(self, operations: Sequence[Operation]) -> None: ...

    def flush(self) -> None:
        """Returns when all that was written is on disk. Raises StoreFailed."""
        ...

    def close(self) -> None:
        """Harmless when closed. What was not flushed may be lost."""
        ...
