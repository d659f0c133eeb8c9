"""The witness: every call received and every effect, in order, durable before it is answered or shown.

Both lists only grow. A call costs 26 bytes of memory beside its key and path (columns, not objects), which
repeated calls share, and 170 bytes on disk. Times are kept as microseconds and rendered when read, in
slices, so that reading a large ledger does not hold up the calls.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import islice
from sys import intern
from typing import Any, Final

import orjson

from tollgate.clock import rfc3339
from tollgate.errors import CorruptionError
from tollgate.local.simulator.charges import Answer, Book, Effect, Execution, execution_from_record
from tollgate.local.simulator.events import event_of
from tollgate.local.simulator.journal import Journal

NO_ANSWER: Final = 0  # the status of a call that is still under way or never was answered
UNAVAILABLE: Final = 503


class Ledger:
    """The book, the calls and the effects over one journal. Raises CorruptionError on one with a hole."""

    def __init__(self, journal: Journal) -> None:
        self.book = Book()
        self.journal = journal
        self.untold: dict[str, bytes] = {}  # webhooks that nobody has taken yet: body by event id
        self._effects: list[Effect] = []
        self._unavailable: dict[str, int] = {}
        self._called_at = array("q")
        self._called: list[str] = []  # "POST /v1/charges", interned
        self._keys: list[str] = []
        self._statuses = array("H")
        for record in journal.recover():
            self._replay(record)

    def call_received(self, at_us: int, method: str, path: str, key: str) -> int:
        """Its number. Durable with the next commit."""
        number = self._add_call(at_us, f"{method} {path}", key)
        self.journal.append({"call": number, "at_us": at_us, "line": f"{method} {path}", "key": key})
        return number

    def call_answered(self, number: int, status: int) -> None:
        """Before the answer goes out, and before the commit that precedes it."""
        self._set_status(number, status)
        self.journal.append({"answered": number, "status": status})

    def execute(self, execution: Execution) -> Answer:
        """Enters it at once, so that the next decision sees it; durable with the next commit."""
        self.journal.append({"executed": execution})
        return self._apply(execution)

    def told(self, event_id: str) -> None:
        """Somebody has taken the webhook. Lost in a crash before the next commit, it is sent again."""
        if self.untold.pop(event_id, None) is not None:
            self.journal.append({"told": event_id})

    def times_unavailable(self, key: str) -> int:
        """How often a call under `key` was answered with the 503 that has no effect."""
        return self._unavailable.get(key, 0)

    def rows(self, since_us: int, limit: int | None) -> Iterator[bytes]:
        """The JSON of /_ledger in slices, as of this call. Commit first: what is shown is durable.

        `limit` holds for each of the two lists, oldest first.
        """
        effects = _listed((effect.at_us for effect in self._effects), len(self._effects), since_us, limit)
        calls = _listed(iter(self._called_at), len(self._called_at), since_us, limit)
        return self._render(effects, calls)

    def _render(self, effects: list[int], calls: list[int]) -> Iterator[bytes]:
        yield b'{"effects":['
        yield from _slices(self._effect_row(n) for n in effects)
        yield b'],"calls":['
        yield from _slices(self._call_row(n) for n in calls)
        yield b"]}"

    def _effect_row(self, number: int) -> dict[str, Any]:
        effect = self._effects[number]
        return {
            "id": effect.id,
            "type": effect.type,
            "checkout_id": effect.checkout_id,
            "merchant": effect.merchant,
            "idempotency_key": effect.idempotency_key,
            "amount": effect.amount,
            "currency": effect.currency,
            "at": rfc3339(effect.at_us),
        }

    def _call_row(self, number: int) -> dict[str, Any]:
        method, _, path = self._called[number].partition(" ")
        return {
            "at": rfc3339(self._called_at[number]),
            "method": method,
            "path": path,
            "idempotency_key": self._keys[number] or None,
            "status": self._statuses[number],
        }

    def _replay(self, record: dict[str, Any]) -> None:
        if "call" in record:
            if self._add_call(record["at_us"], record["line"], record["key"]) != record["call"]:
                raise CorruptionError(
                    f"The ledger {self.journal.path} misses calls before number {record['call']}. "
                    "Restore it from a copy, or start with an empty data folder."
                )
        elif "answered" in record:
            self._set_status(record["answered"], record["status"])
        elif "told" in record:
            self.untold.pop(record["told"], None)
        else:
            self._apply(execution_from_record(record["executed"]))

    def _add_call(self, at_us: int, line: str, key: str) -> int:
        self._called_at.append(at_us)
        self._called.append(intern(line))
        self._keys.append(intern(key))
        self._statuses.append(NO_ANSWER)
        return len(self._called_at) - 1

    def _set_status(self, number: int, status: int) -> None:
        self._statuses[number] = status
        if status == UNAVAILABLE:
            key = self._keys[number]
            self._unavailable[key] = self._unavailable.get(key, 0) + 1

    def _apply(self, execution: Execution) -> Answer:
        if execution.effect is not None:
            self._effects.append(execution.effect)
        if execution.tells:
            event_id, body = event_of(execution)
            self.untold[event_id] = body
        return self.book.apply(execution)


def _listed(times: Iterator[int], count: int, since_us: int, limit: int | None) -> list[int]:
    # Not a bisection: the wall clock may have stepped.
    return list(islice((n for n, at_us in zip(range(count), times, strict=True) if at_us >= since_us), limit))


def _slices(rows: Iterator[dict[str, Any]], size: int = 1000) -> Iterator[bytes]:
    """Comma-separated JSON, `size` rows at a time."""
    separator = b""
    while part := list(islice(rows, size)):
        yield separator + orjson.dumps(part)[1:-1]
        separator = b","
