"""The first change of a new producer in each partition goes alone.

A broker that knows nothing of a producer takes whatever sequence it begins with. So behind a first batch that
is refused for good (too large, not allowed), the next one, which the client library has ready by then, would
be taken, and stand in the log before the one that is shipped again. Once a partition has something of this
producer, a hole is refused there. Pure; forgets itself when every partition is proven.
"""

from __future__ import annotations

from collections.abc import Sequence

from cdc.home import Home
from cdc.record import Record


class Priming:
    """Of one producer. True while a partition is left to prove."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._unproven = set(home.partitions)
        self._out: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._unproven)

    def admit(self, records: Sequence[Record]) -> int:
        """How many of `records`, from the first, may be sent now."""
        out = set(self._out)
        for index, record in enumerate(records):
            partition = self._home.of(record.key)
            if partition in self._unproven:
                if partition in out:
                    return index
                out.add(partition)
        return len(records)

    def sent(self, records: Sequence[Record]) -> None:
        self._out.update(self._home.of(record.key) for record in records)

    def delivered(self, partition: int) -> None:
        self._unproven.discard(partition)
        self._out.discard(partition)
