"""A store in memory that loses, when told, exactly what a disk may lose: a suffix of the unsynced writes.

`Disk` outlives the store as a disk outlives a process: open a new MemoryStore on it after `lose_unsynced`.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence

from gateway.errors import StoreFailed
from gateway.store.interface import Delete, Operation, Put
from tollgate.shard_layout import COLUMN_FAMILIES

_Tables = dict[str, dict[bytes, bytes]]


class Disk:
    """What is synced, and the writes after that in their order."""

    def __init__(self) -> None:
        self.synced: _Tables = {family: {} for family in COLUMN_FAMILIES}
        self.unsynced: list[tuple[Operation, ...]] = []

    def sync(self, count: int) -> None:
        for operations in self.unsynced[:count]:
            _apply(self.synced, operations)
        del self.unsynced[:count]

    def lose_unsynced(self, kept: int = 0) -> None:
        """A power cut: the first `kept` unsynced writes reached the disk, the others are gone."""
        self.sync(kept)
        self.unsynced.clear()


class MemoryStore:
    """Reads see every write at once. `fault` is called before each write and flush and may raise."""

    def __init__(self, disk: Disk, fault: Callable[[str], None] = lambda _call: None) -> None:
        self._disk = disk
        self._fault = fault
        self._closed = False
        self._tables: _Tables = {family: dict(rows) for family, rows in disk.synced.items()}
        for operations in disk.unsynced:
            _apply(self._tables, operations)
        self._sorted: dict[str, list[bytes]] = {}

    def get(self, family: str, key: bytes) -> bytes | None:
        self._check_open()
        return self._tables[family].get(key)

    def get_many(self, family: str, keys: Sequence[bytes]) -> list[bytes | None]:
        self._check_open()
        table = self._tables[family]
        return [table.get(key) for key in keys]

    def scan(self, family: str, start: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        self._check_open()
        table = self._tables[family]
        keys = self._sorted.setdefault(family, sorted(table))
        first = bisect.bisect_left(keys, start)
        return [(key, table[key]) for key in keys[first : first + limit]]

    def write(self, operations: Sequence[Operation]) -> None:
        self._check_open()
        self._fault("write")
        self._disk.unsynced.append(tuple(operations))
        _apply(self._tables, operations)
        self._sorted.clear()

    def flush(self) -> None:
        self._check_open()
        count = len(self._disk.unsynced)  # what is written from here on waits for the next flush
        self._fault("flush")
        self._disk.sync(count)

    def close(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise StoreFailed("The store is closed.")


def _apply(tables: _Tables, operations: Sequence[Operation]) -> None:
    for operation in operations:
        table = tables[operation.family]
        if isinstance(operation, Put):
            table[operation.key] = operation.value
        elif isinstance(operation, Delete):
            table.pop(operation.key, None)
        else:
            for key in [key for key in table if operation.begin <= key < operation.end]:
                del table[key]
