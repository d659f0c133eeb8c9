"""What the tailer does next: pure decisions over what was seen, no I/O and no clock of its own.

Owns the position (the last sequence handed to the producer) and the ladder. Promises: sequence n+1 follows n
or nothing is shipped; nothing beyond the watermark; a new opening of the store (incarnation or epoch) starts
again at the cursor that the shard itself keeps, because a store that lost its tail gives the same sequences
to other changes. Nothing here survives a crash, and nothing needs to.

The ladder, when the next sequence is not where it must be: catch up again, reopen the secondary, ask the
shard (ReadChanges). A tail that is merely not seen yet gets `stale_s` before the first rung; a hole gets
none. Only a gap that the shard confirms halts: then both are looked at again every `halted_s`, and whatever
fills the hole, or another opening of the store, lets it go on.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from cdc.record import Record, RecordReader
from tollgate.v1.shard_pb2 import ReadChangesResponse
from tollgate.watermark import Watermark


@dataclass(frozen=True)
class Policy:
    batch_records_max: int = 1_000
    room_records_min: int = 1  # for fewer nothing is read, unless they are all that there is
    stale_s: float = 2.0  # the watermark may be ahead of what is seen for so long
    retry_s: float = 0.25  # between two tries to open the store or to ask the shard
    halted_s: float = 5.0  # between two looks at whether the gap is still there


class Identity(NamedTuple):
    """One opening of one store: within it a sequence means one change and no other."""

    incarnation: bytes
    epoch: int


class Store(NamedTuple):
    """What an opened secondary says of itself."""

    shard: int
    identity: Identity
    acknowledged: int


@dataclass(frozen=True)
class Idle:
    """Nothing to do until the watermark moves."""


@dataclass(frozen=True)
class Wait:
    """Nothing to do for a moment, though the watermark stands still: space, or another try."""


@dataclass(frozen=True)
class Open:
    """Open the secondary anew, whether or not it is open; `watermark` says what it must turn out to be."""

    watermark: Watermark
    reason: str


@dataclass(frozen=True)
class Read:
    """Catch up, then read the changes after `after` up to and including `up_to`."""

    after: int
    up_to: int


@dataclass(frozen=True)
class Ask:
    """ReadChanges on the shard."""

    from_sequence: int
    limit: int


Action = Idle | Wait | Open | Read | Ask


@dataclass(frozen=True)
class Restart:
    """Shipping starts again after `acknowledged`; what is in flight from before counts for nothing."""

    identity: Identity
    acknowledged: int


class _Rung(enum.Enum):
    READ = "read"
    CAUGHT_UP_AGAIN = "caught up again"
    REOPEN = "reopen"
    REOPENED = "reopened"
    ASK = "ask"


# A hole under the foot moves up one rung; a missing tail skips the first.
_NEXT_RUNG = {
    _Rung.READ: _Rung.CAUGHT_UP_AGAIN,
    _Rung.CAUGHT_UP_AGAIN: _Rung.REOPEN,
    _Rung.REOPENED: _Rung.ASK,
    _Rung.ASK: _Rung.ASK,
}


class Tailer:
    """One per process. Every method is synchronous; `now` is monotonic seconds."""

    def __init__(self, shard: int, policy: Policy) -> None:
        self._shard = shard
        self._policy = policy
        self._rung = _Rung.READ
        self._reader = RecordReader(shard, b"")
        self._short_since: float | None = None
        self._not_before = 0.0
        self._halted_until = 0.0
        self.identity: Identity | None = None
        self.position = 0
        self.halted: str | None = None

    def next(self, watermark: Watermark | None, room: int, now: float, *, is_narrow: bool = False) -> Action:
        """What to do, given the newest watermark and how many records may still go in flight; `is_narrow`
        when few may at all."""
        if watermark is None:
            return Idle()
        if now < self._not_before:
            return Wait()
        if self.identity != Identity(watermark.incarnation, watermark.epoch):
            return Open(watermark, "new epoch" if self.identity is not None else "start")
        is_halted = self.halted is not None and now < self._halted_until
        if is_halted or watermark.sequence <= self.position:
            return Idle()
        room_min = 1 if is_narrow else self._policy.room_records_min
        if room < min(watermark.sequence - self.position, room_min):
            return Wait()
        limit = min(room, self._policy.batch_records_max)
        match self._rung:
            case _Rung.REOPEN:
                return Open(watermark, "gap")
            case _Rung.ASK:
                return Ask(self.position + 1, limit)
            case _:
                return Read(self.position, min(watermark.sequence, self.position + limit))

    def opened(self, store: Store, watermark: Watermark, now: float) -> Restart | None:
        """The secondary is open. Another opening of the store than before starts at the cursor it keeps."""
        if store.shard != self._shard:
            self.identity = Identity(watermark.incarnation, watermark.epoch)
            self._halt(
                math.inf,
                f"The store in this data folder is that of shard {store.shard}, not of shard {self._shard}. "
                "Operator action: correct TOLLGATE_SHARD__DATA_DIR or TOLLGATE_SHARD__ID.",
            )
            return None
        if store.identity != Identity(watermark.incarnation, watermark.epoch):
            self.not_opened(now)  # one of the two is about to change; looked at again soon
            return None
        if store.identity == self.identity:
            self._rung = _Rung.REOPENED
            return None
        self.identity = store.identity
        self._reader = RecordReader(self._shard, store.identity.incarnation)
        return self._restart(store.identity, store.acknowledged)

    def not_opened(self, now: float) -> None:
        """The secondary could not be opened; tried again after a moment, unless the shard can still be
        asked."""
        self._not_before = now + self._policy.retry_s
        if self._rung is _Rung.REOPEN:
            self._rung = _Rung.ASK

    def seen(self, read: Read, rows: Iterable[tuple[int, bytes]], now: float) -> list[Record]:
        """The records that follow the position without a gap. When there are none, the ladder moves."""
        records, problem = self._reader.following(read.after, rows)
        if records:
            self.halted = None
            self._settle()
        elif problem is not None:
            self._climb()
        else:
            self._climb_when_stale(now)
        return records

    def unreadable(self) -> None:
        """The secondary could not be read at all."""
        self._climb()

    def answered(self, answer: ReadChangesResponse, now: float) -> list[Record] | Restart:
        """The shard's word is final: it fills the hole, or confirms it."""
        self._not_before = now + self._policy.retry_s
        if self.identity is None or self.identity != Identity(answer.incarnation, answer.epoch):
            return []  # reopened meanwhile; the watermark will say so
        wanted = self.position + 1
        if answer.acknowledged_sequence >= wanted:
            # Shipped by an earlier process whose acknowledgement this secondary had not seen.
            return self._restart(self.identity, answer.acknowledged_sequence)
        self._rung = _Rung.REOPENED  # the secondary is tried once more before the shard is asked again
        if answer.durable_sequence < wanted:
            return []  # the watermark is ahead of the shard: nothing is missing from the log
        rows = ((wanted + index, value) for index, value in enumerate(answer.changes))
        records, problem = self._reader.following(self.position, rows)
        if not records:
            self._halt(
                now + self._policy.halted_s,
                f"Shard {self._shard} has no readable change {wanted} ({problem or 'it is missing'}), though "
                f"{answer.durable_sequence} is durable. Nothing after {self.position} is shipped. "
                "Operator action: stop the shard, keep a copy of its data folder, and restore the folder "
                "from its last good state; this process goes on by itself when the shard is back.",
            )
            return []
        self.halted = None
        self._not_before = now
        return records

    def unanswered(self, now: float) -> None:
        """The shard could not be asked. Meanwhile a new secondary may see what this one does not."""
        self._not_before = now + self._policy.retry_s
        self._rung = _Rung.REOPEN

    def published(self, sequence: int) -> None:
        """The producer has taken everything up to `sequence`."""
        self.position = sequence

    def rewind(self, sequence: int) -> None:
        """Ship again from `sequence` + 1, with a new producer."""
        self.position = sequence
        self._settle()

    def _restart(self, identity: Identity, acknowledged: int) -> Restart:
        self.halted = None
        self.rewind(acknowledged)
        return Restart(identity, acknowledged)

    def _settle(self) -> None:
        self._rung = _Rung.READ
        self._short_since = None

    def _climb(self) -> None:
        self._rung = _NEXT_RUNG[self._rung]
        self._short_since = None

    def _climb_when_stale(self, now: float) -> None:
        """A tail that is not seen yet: usually it is there at the next look."""
        if self._rung is _Rung.REOPENED:
            self._rung = _Rung.ASK
        elif self._short_since is None:
            self._short_since = now
        elif now - self._short_since >= self._policy.stale_s:
            self._rung = _Rung.REOPEN
            self._short_since = None

    def _halt(self, until: float, reason: str) -> None:
        self.halted = reason
        self._halted_until = until
