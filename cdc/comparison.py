"""A shard's change log beside what Kafka holds of it: pure, no I/O, memory of 9 bytes a change.

Each change of a window of the log is kept as a 64-bit digest of the record that it must have become: key,
value and headers. Records of the topic are then taken in the order of their partitions, each once. Python's
own hash of bytes is keyed anew in each process: two records have the same one by chance only, 1 in 2^64.

What is a finding and what is not:

- *missing*: the shard knows it as delivered, Kafka has no record of it. What is above the acknowledged
  sequence is lag, and what Kafka's retention took is counted as `expired`.
- *different*: a record under the change's sequence has another key, value or header.
- *out of order*: first occurrences go down within a partition. Repeats may come anywhere.
- *misplaced*: a record lies in another partition than its key's: its key's order is not kept.
- *unexpected*: a record of this store with a sequence above what is durable.
- *lost tail*: a record of another opening than this one that the log doesn't have. Kafka got it, the store
  forgot it: an earlier opening whose end was lost, or one of the folder that a copy took the place of.
- *gap*: the log itself has no change there.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from google.protobuf.message import DecodeError

from cdc.home import Home
from cdc.tailer import Identity
from tollgate.topics import (
    HEADER_EPOCH,
    HEADER_INCARNATION,
    HEADER_SEQUENCE,
    HEADER_SHARD,
    HEADER_TRACEPARENT,
)
from tollgate.v1.change_pb2 import Change

Problem = Literal["missing", "different", "out of order", "misplaced", "unexpected", "lost tail", "gap"]
Headers = tuple[tuple[str, bytes], ...]

FINDINGS_KEPT: Final = 1_000  # of each problem; all are counted

_ABSENT: Final = 0
_UNSEEN: Final = 1
_SEEN: Final = 2


class LogFacts(NamedTuple):
    """What a shard's store said: `acknowledged` before Kafka was asked how far it goes, `durable` and the
    epoch after. So all up to the one must be there, and nothing beyond the other can be.
    """

    shard: int
    identity: Identity
    pruned: int
    acknowledged: int
    durable: int


class TopicRecord(NamedTuple):
    """A record of payments.changes that names this store in its headers."""

    partition: int
    offset: int
    key: bytes
    value: bytes
    headers: Headers


class Finding(NamedTuple):
    problem: Problem
    sequence: int
    key: str  # merchant/checkout id, or psp/event id; empty when it can't be known
    detail: str


@dataclass(frozen=True)
class TopicFloor:
    """What a partition has lost to retention: nothing, or what is older than its oldest record."""

    is_cut: bool
    oldest_us: int | None  # None: it has no record

    def may_have_lost(self, committed_at_us: int) -> bool:
        return self.is_cut and (self.oldest_us is None or committed_at_us <= self.oldest_us)


@dataclass
class Tally:
    """What a comparison came to. Counts are complete, `findings` holds the first of each problem."""

    records: int = 0  # of this store, in Kafka
    compared: int = 0  # changes of the log that Kafka must have
    repeats: int = 0
    below_floor: int = 0  # records whose change the shard has pruned
    expired: int = 0  # changes whose record Kafka has expired
    unshipped: int = 0
    problems: Counter[Problem] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    def find(self, problem: Problem, sequence: int, key: str, detail: str) -> None:
        self.problems[problem] += 1
        if self.problems[problem] <= FINDINGS_KEPT:
            self.findings.append(Finding(problem, sequence, key, detail))

    def first(self, limit: int) -> list[Finding]:
        """`limit` findings of each problem."""
        shown: Counter[Problem] = Counter()
        chosen = []
        for finding in self.findings:
            shown[finding.problem] += 1
            if shown[finding.problem] <= limit:
                chosen.append(finding)
        return chosen


def expected_headers(change: Change) -> Headers:
    """What the tailer sends beside a change."""
    return (
        (HEADER_SHARD, b"%d" % change.shard),
        (HEADER_INCARNATION, change.incarnation.hex().encode()),
        (HEADER_EPOCH, b"%d" % change.epoch),
        (HEADER_SEQUENCE, b"%d" % change.sequence),
        (HEADER_TRACEPARENT, change.traceparent.encode()),
    )


class WindowComparison:
    """The changes (after, up_to] of one store. First `logged` for each, then `shipped` for each record of the
    topic, then `conclude`. Adds to `tally`, which several windows of one log share."""

    def __init__(
        self,
        facts: LogFacts,
        after: int,
        up_to: int,
        tally: Tally,
        read: Callable[[int], bytes | None],
        floors: Mapping[int, TopicFloor],
        *,
        is_first: bool,
    ) -> None:
        """`read` gives a change of the log again, for the few of which something must be said; `floors` has
        all partitions of the topic. What no window holds is counted by the first."""
        self._facts = facts
        self._after = after
        self._up_to = up_to
        self._tally = tally
        self._read = read
        self._floors = floors
        self._home = Home(facts.shard, len(floors))
        self._floor = facts.pruned
        self._is_first = is_first
        self._digests = array("q", bytes(8 * (up_to - after)))
        self._states = bytearray(up_to - after)
        self._newest: dict[int, int] = {}  # partition → the highest sequence that has occurred
        self.later: dict[int, int] = {}  # partition → the first offset of a change beyond this window

    def logged(self, sequence: int, value: bytes) -> None:
        index = sequence - self._after - 1
        try:
            change = Change.FromString(value)
        except DecodeError:
            return  # as good as absent
        if change.sequence == sequence and change.incarnation == self._facts.identity.incarnation:
            self._digests[index] = hash((change.key.encode(), value, expected_headers(change)))
            self._states[index] = _UNSEEN

    def has_gap(self) -> bool:
        return self._states.find(_ABSENT, max(0, self._floor - self._after)) >= 0

    def pruned(self, through: int) -> None:
        """The shard has pruned meanwhile: what is gone can't be compared."""
        self._floor = max(self._floor, through)

    def shipped(self, record: TopicRecord, named: Mapping[str, bytes]) -> None:
        """`named` are its headers by name."""
        self._tally.records += self._is_first
        try:
            sequence, epoch = int(named[HEADER_SEQUENCE]), int(named[HEADER_EPOCH])
        except (KeyError, ValueError):
            if self._is_first:
                self._find("unexpected", record, 0, "its headers hold no sequence and epoch")
            return
        if self._after < sequence <= self._up_to and sequence > self._floor:
            self._judge(record, sequence, epoch)
        elif sequence <= self._floor:
            self._tally.below_floor += self._is_first
        elif sequence > self._facts.durable:
            if self._is_first:
                self._beyond(record, sequence, epoch)
        elif sequence > self._up_to:
            self.later.setdefault(record.partition, record.offset)

    def _judge(self, record: TopicRecord, sequence: int, epoch: int) -> None:
        index = sequence - self._after - 1
        state = self._states[index]
        if state == _ABSENT:
            return  # the gap is told of already
        if hash((record.key, record.value, record.headers)) != self._digests[index]:
            if self._differs(record, sequence, epoch):
                self._states[index] = _SEEN
            return
        if state == _SEEN:
            self._tally.repeats += 1
            return
        self._states[index] = _SEEN
        newest = self._newest.get(record.partition, 0)
        if sequence < newest or record.partition in self.later:
            self._late(record, sequence, self._up_to + 1 if record.partition in self.later else newest)
        else:
            self._newest[record.partition] = sequence
        home = self._home.of(record.key)
        if home != record.partition:
            self._find("misplaced", record, sequence, f"its key belongs to partition {home}")

    def _late(self, record: TopicRecord, sequence: int, newest: int) -> None:
        """It first occurs behind a later one, unless the first of all has expired, and this repeats it."""
        stored = self._read(sequence)
        if stored is not None and self._may_have_expired(record.partition, Change.FromString(stored)):
            self._tally.repeats += 1
        else:
            self._find("out of order", record, sequence, f"it first occurs behind {newest} or a later one")

    def _may_have_expired(self, partition: int, change: Change) -> bool:
        return self._floors[partition].may_have_lost(change.committed_at_us)

    def _differs(self, record: TopicRecord, sequence: int, epoch: int) -> bool:
        """Whether it is this change, altered; else it is another one, that once had this sequence."""
        stored = self._read(sequence)
        if stored is None:
            self._find("different", record, sequence, "the log's change was pruned before it could be shown")
            return True
        change = Change.FromString(stored)
        if epoch != change.epoch:
            self._of_another_epoch(record, sequence, epoch, change.epoch)
            return False
        ours, theirs = dict(expected_headers(change)), dict(record.headers)
        parts = [f"header {name}" for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
        parts += ["key"] * (record.key != change.key.encode()) + ["value"] * (record.value != stored)
        self._find("different", record, sequence, f"{', '.join(parts) or 'headers'} differ from the log")
        return True

    def _of_another_epoch(self, record: TopicRecord, sequence: int, epoch: int, ours: int) -> None:
        problem: Problem = "unexpected" if epoch == self._facts.identity.epoch else "lost tail"
        self._find(problem, record, sequence, f"of epoch {epoch}; the log's is of epoch {ours}")

    def _beyond(self, record: TopicRecord, sequence: int, epoch: int) -> None:
        durable = self._facts.durable
        if epoch != self._facts.identity.epoch:
            self._find("lost tail", record, sequence, f"of epoch {epoch}; the log ends at {durable}")
        else:
            self._find("unexpected", record, sequence, f"only {durable} is durable in the shard")

    def _find(self, problem: Problem, record: TopicRecord, sequence: int, detail: str) -> None:
        where = f"{record.partition}/{record.offset}"
        self._tally.find(problem, sequence, record.key.decode(errors="replace"), f"{detail} (at {where})")

    def conclude(self) -> None:
        """All of the topic was shown."""
        start = max(0, self._floor - self._after)
        last = min(self._up_to, self._facts.acknowledged)
        self._tally.compared += max(0, last - self._after - start)
        for index in _places(self._states, _ABSENT, start):
            self._tally.find("gap", self._after + 1 + index, "", "the log has no readable change there")
        for index in _places(self._states, _UNSEEN, start):
            sequence = self._after + 1 + index
            if sequence > self._facts.acknowledged:
                self._tally.unshipped += 1
            else:
                self._absent_from_kafka(sequence)

    def _absent_from_kafka(self, sequence: int) -> None:
        stored = self._read(sequence)
        if stored is None:
            self._tally.find("missing", sequence, "", "no record; the log's change was pruned meanwhile")
            return
        change = Change.FromString(stored)
        partition = self._home.of(change.key.encode())
        if self._may_have_expired(partition, change):
            self._tally.expired += 1
        else:
            self._tally.find("missing", sequence, change.key, f"no record in partition {partition}")


def _places(states: bytearray, wanted: int, start: int) -> Iterator[int]:
    place = states.find(wanted, start)
    while place >= 0:
        yield place
        place = states.find(wanted, place + 1)
