"""`tollgate cdc verify`: what each shard's log says was shipped, beside what Kafka holds, record by record.

The order, which makes a live system comparable:

1. each store's acknowledged sequence is read: all up to it was delivered before now,
2. Kafka is asked where its partitions end: all of that lies before these ends,
3. each store's watermark is read: nothing that lies before the ends can be beyond it,
4. the log up to there is taken in, then the topic up to its ends.

Memory is bounded by `WINDOW`: a longer log is compared window by window, and the topic is read again from the
first record of the next one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from cdc.change_topic import ChangeTopic, Extent
from cdc.comparison import LogFacts, Tally, TopicFloor, WindowComparison
from cdc.shard_log import LogState
from tollgate.errors import OperationalError
from tollgate.topics import CHANGES, HEADER_INCARNATION

WINDOW: Final = 16_000_000  # changes of all shards together, 9 bytes each
_CAUGHT_UP_EVERY_S: Final = 0.1
_TOLD_EVERY: Final = 10_000

Progress = Callable[[str, int, int], None]  # what is read, how far, of how many


class Log(Protocol):
    """A shard's change log, as `ShardLog` reads it."""

    def look(self) -> LogState: ...

    def look_until_seen(self) -> LogState: ...

    def reopen(self) -> None: ...

    def rows(self, after: int, up_to: int) -> Iterator[tuple[int, bytes]]: ...

    def value(self, sequence: int) -> bytes | None: ...


@dataclass(frozen=True)
class ShardVerdict:
    facts: LogFacts
    tally: Tally

    @property
    def ok(self) -> bool:
        return not self.tally.problems


@dataclass(frozen=True)
class Verification:
    """`foreign` are records of other stores: other shards, or those that a replaced volume held."""

    shards: tuple[ShardVerdict, ...]
    records: int
    foreign: int
    duration_s: float

    @property
    def ok(self) -> bool:
        return all(shard.ok for shard in self.shards)


class _Shard:
    """One log on its way through the windows."""

    def __init__(self, log: Log, facts: LogFacts, progress: Progress) -> None:
        self.log = log
        self.facts = facts
        self.tally = Tally()
        self.after = facts.pruned
        self.store = facts.identity.incarnation.hex().encode()
        self._progress = progress

    def next_window(self, size: int, floors: Mapping[int, TopicFloor], *, is_first: bool) -> WindowComparison:
        up_to = min(self.after + size, self.facts.durable)
        comparison = WindowComparison(
            self.facts, self.after, up_to, self.tally, self.log.value, floors, is_first=is_first
        )
        self._take_in(comparison, up_to)
        if comparison.has_gap():  # pruned meanwhile, or not seen by this secondary
            self.log.reopen()
            comparison.pruned(self.log.look().pruned)
            self._take_in(comparison, up_to)
        self.after = up_to
        return comparison

    def _take_in(self, comparison: WindowComparison, up_to: int) -> None:
        name, floor, end = f"log of shard {self.facts.shard}", self.facts.pruned, self.facts.durable
        for sequence, value in self.log.rows(self.after, up_to):
            comparison.logged(sequence, value)
            if sequence % _TOLD_EVERY == 0 or sequence == end:
                self._progress(name, sequence - floor, end - floor)

    def is_done(self, *, topic_is_done: bool) -> bool:
        """What is left, if anything, is lag."""
        return self.after >= (self.facts.acknowledged if topic_is_done else self.facts.durable)


def verify(
    logs: Sequence[Log],
    topic: ChangeTopic,
    progress: Progress = lambda _what, _done, _total: None,
    window: int = WINDOW,
) -> Verification:
    """Blocking. Raises OperationalError when a log or the topic can't be read to its end."""
    began = time.monotonic()
    before = [log.look() for log in logs]
    extents = topic.extents()
    shards = [
        _Shard(log, _facts(state, log.look_until_seen()), progress)
        for log, state in zip(logs, before, strict=True)
    ]
    floors = topic.floors(extents)
    size = max(1, window // max(1, len(shards)))
    read, foreign, later = _pass(shards, topic, extents, floors, size, None, progress)
    while not all(shard.is_done(topic_is_done=not later) for shard in shards):
        _, _, later = _pass(shards, topic, extents, floors, size, later, progress)
    for shard in shards:
        shard.tally.unshipped += shard.facts.durable - shard.after
    verdicts = tuple(ShardVerdict(shard.facts, shard.tally) for shard in shards)
    return Verification(verdicts, read, foreign, time.monotonic() - began)


def _pass(
    shards: Sequence[_Shard],
    topic: ChangeTopic,
    extents: Mapping[int, Extent],
    floors: Mapping[int, TopicFloor],
    size: int,
    begin: Mapping[int, int] | None,
    progress: Progress,
) -> tuple[int, int, dict[int, int]]:
    """One window of each log. Returns records read, those of other stores, and where the next ones' begin."""
    windows = {shard.store: shard.next_window(size, floors, is_first=begin is None) for shard in shards}
    starts = {number: extent.low for number, extent in extents.items()} if begin is None else begin
    total = sum(extents[number].high - start for number, start in starts.items())
    read = foreign = 0
    for batch in topic.read(extents, starts):
        for record in batch:
            named = dict(record.headers)
            comparison = windows.get(named.get(HEADER_INCARNATION, b""))
            if comparison is None:
                foreign += 1
            else:
                comparison.shipped(record, named)
        read += len(batch)
        progress(CHANGES, read, total)
    later: dict[int, int] = {}
    for comparison in windows.values():
        comparison.conclude()
        for partition, offset in comparison.later.items():
            later[partition] = min(offset, later.get(partition, offset))
    return read, foreign, later


def _facts(before: LogState, after: LogState) -> LogFacts:
    if before.identity.incarnation != after.identity.incarnation:
        raise OperationalError(
            f"The store of shard {before.shard} was replaced by another while it was being read. Try again."
        )
    return LogFacts(after.shard, after.identity, before.pruned, before.acknowledged, after.durable)


def wait_until_shipped(logs: Sequence[Log], timeout_s: float) -> list[LogState]:
    """Until what was durable at the call is acknowledged. Returns the shards that are still behind."""
    goals = [log.look_until_seen().durable for log in logs]
    deadline = time.monotonic() + timeout_s
    while True:
        behind = [
            state for log, goal in zip(logs, goals, strict=True) if (state := log.look()).acknowledged < goal
        ]
        if not behind or time.monotonic() >= deadline:
            return behind
        time.sleep(_CAUGHT_UP_EVERY_S)
