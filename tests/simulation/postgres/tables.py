"""The tables in memory, and what a transaction did to them, so that it can be taken back."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg

from tollgate.status import BY_NAME, is_legal

_MISSING: Final = object()


class Row(dict[str, Any]):
    """As asyncpg's Record, as far as it is read by name."""


class Listed(Row):
    """By position too, and iterated over its values."""

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values())

    def __getitem__(self, key: Any) -> Any:
        if type(key) is str:
            return dict.__getitem__(self, key)
        return tuple(self.values())[key]


Table = dict[Any, Row]


@dataclass
class Tables:
    payments: Table = field(default_factory=dict)
    operations: Table = field(default_factory=dict)
    shards: Table = field(default_factory=dict)
    conflicts: Table = field(default_factory=dict)
    requests: Table = field(default_factory=dict)
    attempts: Table = field(default_factory=dict)
    anomalies: Table = field(default_factory=dict)
    outbox: Table = field(default_factory=dict)  # those that are not published
    published: Table = field(default_factory=dict)
    resends: Table = field(default_factory=dict)
    inbox: Table = field(default_factory=dict)
    assessments: Table = field(default_factory=dict)
    budgets: Table = field(default_factory=dict)
    dead_letters: Table = field(default_factory=dict)
    # Indexes, kept by the statements that write: every one is of keys that never change.
    operations_of: dict[tuple[str, str], list[tuple[str, str, str]]] = field(default_factory=dict)
    steps_of: dict[tuple[str, str, str], list[tuple[str, str, str, str]]] = field(default_factory=dict)
    calls_of: dict[tuple[str, str, str, str], list[Any]] = field(default_factory=dict)
    shards_of: dict[tuple[str, str], dict[int, None]] = field(default_factory=dict)
    outbox_ids: int = 0
    anomaly_ids: int = 0


class Transaction:
    """`now_us` is its start, as now() is."""

    def __init__(self, tables: Tables, now_us: int, clock: Callable[[], int]) -> None:
        self.tables = tables
        self.now_us = now_us
        self.clock_us = clock
        self._undo: list[Callable[[], None]] = []

    def put(self, table: Table, key: Hashable, row: Row) -> None:
        before = table.get(key, _MISSING)
        table[key] = row
        self._undo.append(lambda: _restore(table, key, before))

    def change(self, table: Table, key: Hashable, **columns: Any) -> None:
        self.put(table, key, Row(table[key] | columns))

    def delete(self, table: Table, key: Hashable) -> None:
        before = table.pop(key, _MISSING)
        if before is not _MISSING:
            self._undo.append(lambda: _restore(table, key, before))

    def undoing(self, undo: Callable[[], None]) -> None:
        self._undo.append(undo)

    def roll_back(self) -> None:
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()


def _restore(table: Table, key: Hashable, before: Any) -> None:
    if before is _MISSING:
        del table[key]
    else:
        table[key] = before


def check_change(before: Row, after: Row) -> None:
    """What the triggers and constraints of payments refuse."""
    where = f"payment {after['merchant']}/{after['checkout_id']}"
    if after["version"] != before["version"] + 1:
        raise refused(f"{where}: version {after['version']} may not follow {before['version']}")
    statuses = BY_NAME[before["status"]], BY_NAME[after["status"]]
    if statuses[0] != statuses[1] and not is_legal(*statuses):
        raise refused(f"{where}: status {after['status']} may not follow {before['status']}")
    if after["refunded_amount"] < before["refunded_amount"] or (
        before["captured_amount"] > 0 and after["captured_amount"] != before["captured_amount"]
    ):
        raise refused(f"{where}: what was captured or refunded may not change back")
    captured, refunded = after["captured_amount"], after["refunded_amount"]
    fits = {
        "succeeded": captured > 0 and refunded == 0,
        "partially_refunded": 0 < refunded < captured,
        "refunded": captured > 0 and refunded == captured,
    }.get(after["status"], captured == 0)
    if not fits or not 0 <= refunded <= captured <= after["amount"]:
        raise refused(f"{where}: {captured} captured and {refunded} refunded don't fit {after['status']}")


def refused(why: str) -> asyncpg.CheckViolationError:
    return asyncpg.CheckViolationError(why)
