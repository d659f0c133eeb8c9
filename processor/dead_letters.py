"""A record that intake sets aside, and its order among those of its key. Pure.

Where a record first was is its name for ever: a redriven one carries it along, so that it keeps its place
before the later changes of its key, however often it comes back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final, NamedTuple

from processor.changes import ChangeRecord
from processor.kafka.producer import Outgoing
from tollgate import topics

REPLAY_COUNT: Final = "replay_count"
REDRIVEN_FROM: Final = "redriven_from"
ERROR: Final = "error"
ATTEMPTS: Final = "attempts"
ORIGIN: Final = ("origin_topic", "origin_partition", "origin_offset")
# Everything that the dead letter queue adds to a record's own headers.
ADDED: Final = frozenset({REPLAY_COUNT, REDRIVEN_FROM, ERROR, ATTEMPTS, *ORIGIN})

BEHIND: Final = "an earlier change of its key is set aside"

Headers = Iterable[tuple[str, bytes]]


class Origin(NamedTuple):
    """Where a record first was. Those of one key lie in one partition, in order."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


class OpenLetters:
    """The letters that are open, by key and partition."""

    def __init__(self, letters: Iterable[tuple[bytes, Origin]] = ()) -> None:
        self._open: dict[tuple[bytes, str, int], set[int]] = {}
        for digest, origin in letters:
            self._at(digest, origin).add(origin.offset)

    def add(self, record: ChangeRecord) -> None:
        """It is set aside."""
        origin = origin_of(record)
        self._at(key_hash(record.key), origin).add(origin.offset)

    def discard(self, record: ChangeRecord) -> None:
        """It is being taken in: what comes after it may follow."""
        if self._open:
            origin = origin_of(record)
            self._at(key_hash(record.key), origin).discard(origin.offset)

    def blocks(self, record: ChangeRecord) -> bool:
        """Whether an earlier change of the record's key is set aside."""
        if not self._open:
            return False
        origin = origin_of(record)
        return min(self._at(key_hash(record.key), origin), default=origin.offset) < origin.offset

    def _at(self, digest: bytes, origin: Origin) -> set[int]:
        return self._open.setdefault((digest, origin.topic, origin.partition), set())


def key_hash(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def parse_origin(text: str) -> Origin | None:
    """`topic/partition/offset`; None when it isn't that."""
    topic, _, rest = text.partition("/")
    partition, _, offset = rest.partition("/")
    if not (topic and partition.isascii() and partition.isdigit() and offset.isascii() and offset.isdigit()):
        return None
    return Origin(topic, int(partition), int(offset))


def is_redriven(record: ChangeRecord) -> bool:
    return any(name == REDRIVEN_FROM for name, _ in record.headers)


def origin_of(record: ChangeRecord) -> Origin:
    """Where it first was: what a redrive says, or where it is."""
    for name, value in record.headers:
        if name == REDRIVEN_FROM and (origin := parse_origin(value.decode(errors="replace"))):
            return origin
    return Origin(record.topic, record.partition, record.offset)


def replays_of(headers: Headers) -> int:
    """How often it was redriven; 0 where nobody says."""
    for name, value in headers:
        if name == REPLAY_COUNT and value.isdigit():
            return int(value)
    return 0


def own_headers(headers: Headers) -> list[tuple[str, bytes]]:
    """Those that the record came with when it was first taken in."""
    return [(name, value) for name, value in headers if name not in ADDED]


def dlq_record(record: ChangeRecord, error: str) -> Outgoing:
    """As it was, and beside it why and from where."""
    origin, replays = origin_of(record), replays_of(record.headers)
    added = {
        ERROR: error,
        ATTEMPTS: str(replays + 1),
        **dict(zip(ORIGIN, map(str, origin), strict=True)),
        **({REPLAY_COUNT: str(replays)} if replays else {}),
    }
    headers = [*own_headers(record.headers), *((name, value.encode()) for name, value in added.items())]
    return Outgoing(topics.DLQ, record.key, record.value, headers)


def redriven(key: bytes, value: bytes, headers: Headers, origin: Origin, replays: int) -> Outgoing:
    """Back to where it came from: bytes, key, headers and partition as they were, and the count beside."""
    added = [(REPLAY_COUNT, str(replays).encode()), (REDRIVEN_FROM, str(origin).encode())]
    return Outgoing(origin.topic, key, value, [*own_headers(headers), *added], origin.partition)
