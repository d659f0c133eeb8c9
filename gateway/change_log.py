"""The change log's state: where it ends, what of it is shipped, what of it is gone, and how large it is.

Survives a crash: every number here is in `meta`, in the WriteBatch of what it describes, and is checked
against the records when the store is opened. Marks cut the log into pieces of about `MARK_BYTES`, so that
retention knows age and size of any piece without reading it.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from gateway.wire import change_of_acceptance
from tollgate.shard_layout import META_MARK_PREFIX, PAYMENTS_WITNESS_PREFIX, decode_u64, encode_u64
from tollgate.v1.change_pb2 import Change, Webhook
from tollgate.webhooks.interface import WebhookEvent

MARK_BYTES: Final = 256 * 1024

# Field 26 of Payment, fixed64: a tag of two bytes and the number.
_SEQUENCE_FIELD: Final = struct.Struct("<HQ")
_SEQUENCE_TAG: Final = (26 << 3 | 1) & 0x7F | 0x80 | (26 << 3 | 1) >> 7 << 8


class Identity(NamedTuple):
    """Which store this is, and which opening of it."""

    shard: int
    incarnation: bytes
    epoch: int


class Mark(NamedTuple):
    """Up to and including `sequence`, the log has taken `bytes_total` since the store was made."""

    sequence: int
    committed_at_us: int
    bytes_total: int
    previous: int = 0  # the mark before, or where the log was pruned to

    def key(self) -> bytes:
        return META_MARK_PREFIX + encode_u64(self.sequence)

    def value(self) -> bytes:
        return b"".join(map(encode_u64, (self.committed_at_us, self.bytes_total, self.previous)))

    def witness(self) -> bytes:
        """Its key among the payments: stored with it, so that neither can be lost alone unseen."""
        return PAYMENTS_WITNESS_PREFIX + encode_u64(self.sequence)

    @classmethod
    def parse(cls, key: bytes, value: bytes) -> Mark:
        """Raises struct.error when it is none."""
        fields = (decode_u64(value[at : at + 8]) for at in (0, 8, 16))
        return cls(decode_u64(key.removeprefix(META_MARK_PREFIX)), *fields)


@dataclass(frozen=True, slots=True)
class LogState:
    """pruned <= acknowledged <= last: the log holds (pruned, last]."""

    last: int = 0
    acknowledged: int = 0
    pruned: int = 0
    bytes_total: int = 0
    marks: tuple[Mark, ...] = ()  # ascending, those after `pruned`

    def needs_mark(self) -> bool:
        previous = self.marks[-1].bytes_total if self.marks else 0
        return self.bytes_total - previous >= MARK_BYTES

    def next_mark(self, now_us: int) -> Mark:
        previous = self.marks[-1].sequence if self.marks else self.pruned
        return Mark(self.last, now_us, self.bytes_total, previous)


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """Acknowledged changes stay for `age_us`, but never more than `bytes_max` and a piece of the log."""

    age_us: int
    bytes_max: int

    def by_size_alone(self) -> RetentionPolicy:
        return replace(self, age_us=sys.maxsize)


def prunable(log: LogState, policy: RetentionPolicy, now_us: int) -> int | None:
    """The last sequence that may go now, a whole piece, never beyond what is acknowledged. None: nothing."""
    through = None
    for mark in log.marks:
        too_old = mark.committed_at_us < now_us - policy.age_us
        too_much = log.bytes_total - mark.bytes_total >= policy.bytes_max
        if mark.sequence > log.acknowledged or not (too_old or too_much):
            break
        through = mark.sequence
    return through


def stored_payment(payment: bytes, sequence: int) -> bytes:
    """The accepted payment as it stands under its key: with the sequence of its change, spliced in too."""
    return payment + _SEQUENCE_FIELD.pack(_SEQUENCE_TAG, sequence)


class ChangeWriter:
    """Serializes the changes of one opened store; a payment goes in as the bytes it was admitted with."""

    def __init__(self, identity: Identity) -> None:
        shard, incarnation, epoch = identity
        self._origin = Change(shard=shard, incarnation=incarnation, epoch=epoch).SerializeToString()

    def acceptance(
        self, key: str, sequence: int, committed_at_us: int, traceparent: str, payment: bytes
    ) -> bytes:
        return change_of_acceptance(self._origin, key, sequence, committed_at_us, traceparent, payment)

    def webhook(
        self,
        psp: str,
        event: WebhookEvent,
        received_at_us: int,
        sequence: int,
        committed_at_us: int,
        traceparent: str,
    ) -> bytes:
        webhook = Webhook(psp=psp, event_id=event.event_id, body=event.body, received_at_us=received_at_us)
        change = Change(
            key=f"{psp}/{event.event_id}",
            sequence=sequence,
            committed_at_us=committed_at_us,
            traceparent=traceparent,
            webhook=webhook,
        )
        return self._origin + change.SerializeToString()
