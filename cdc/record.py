"""A change on its way to Kafka: its stored bytes untouched, and what Kafka is told beside them.

Promises: what is read here out of a change is what parsing all of it gives. What the shard's own writer puts
in front of a payment is read where it stands, and the payment not at all; a change of any other shape, which
protobuf allows, is parsed. That costs 0.7 us in place of 2.8.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from struct import Struct
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from tollgate.v1.change_pb2 import Change
from tollgate.varint import varint

_KEY_TAG: Final = b"\x0a"
_SEQUENCE_TAG: Final = 5 << 3
# committed_at_us as a tag and a varint, which takes eight bytes for any time of the years 1987 to 4253, and
# traceparent as a tag, its length, and the 55 characters that version 00 has.
_TIME_AND_TRACE: Final = Struct("<BQ2s55s")
_TIME_TAG: Final = 6 << 3
_CONTINUED: Final = 0x8080808080808080
_EIGHT_BYTES: Final = 0x0080808080808080
_TRACE_TAG: Final = bytes((7 << 3 | 2, 55))
_BODY_TAGS: Final = (b"\x52", b"\x5a")  # acceptance, webhook
_LOW_BITS: Final = 7
_LOW_MASK: Final = (1 << _LOW_BITS) - 1
_SEQUENCE_STARTS: Final = tuple(bytes((_SEQUENCE_TAG, low | 0x80)) for low in range(1 << _LOW_BITS))


class Record(NamedTuple):
    sequence: int
    epoch: int  # of the change, which may be older than the store's
    key: bytes
    traceparent: bytes
    value: bytes

    def committed_at_us(self) -> int:
        return Change.FromString(self.value).committed_at_us


class RecordReader:
    """Of the changes of one store."""

    def __init__(self, shard: int, incarnation: bytes) -> None:
        self._shard = shard
        self._incarnation = incarnation
        self._epoch = 0
        self._start = b"\xff"  # no change begins so: the first one is parsed and says how the next begins

    def following(self, after: int, rows: Iterable[tuple[int, bytes]]) -> tuple[list[Record], str | None]:
        """The records that follow `after` one by one, and what stopped them (None: the rows ended)."""
        records: list[Record] = []
        add, new, unpack = records.append, tuple.__new__, _TIME_AND_TRACE.unpack_from
        expected, start, key_at = after + 1, self._start, len(self._start) + 1
        high_bits = -1
        sequence_end = b""
        for sequence, value in rows:
            if sequence != expected:
                return records, f"{sequence} follows {expected - 1}"
            if expected >> _LOW_BITS != high_bits:
                high_bits = expected >> _LOW_BITS
                sequence_end = varint(high_bits)
            # The length of a key is one byte, up to 127; what is longer fits no sequence field after it.
            size = len(value)
            if size > key_at and value.startswith(start) and (key_length := value[key_at - 1]) <= _LOW_MASK:
                key_end = key_at + key_length
                field = _SEQUENCE_STARTS[expected & _LOW_MASK] + sequence_end
                at = key_end + len(field)
                body_at = at + _TIME_AND_TRACE.size
                if value.startswith(field, key_end) and value.startswith(
                    _body_starts(size - body_at), body_at
                ):
                    time_tag, time, trace_tag, trace = unpack(value, at)
                    key = value[key_at:key_end]
                    if (
                        time_tag == _TIME_TAG
                        and time & _CONTINUED == _EIGHT_BYTES
                        and trace_tag == _TRACE_TAG
                        and key.isascii()
                        and trace.isascii()
                    ):
                        add(new(Record, (expected, self._epoch, key, trace, value)))
                        expected += 1
                        continue
            record = self._parsed(expected, value)
            if isinstance(record, str):
                return records, record
            add(record)
            start, key_at = self._start, len(self._start) + 1
            expected += 1
        return records, None

    def _parsed(self, expected: int, value: bytes) -> Record | str:
        """The record, or why this can't be the change `expected` of this store."""
        try:
            change = Change.FromString(value)
        except DecodeError:
            return f"change {expected} can't be parsed"
        if (
            change.sequence != expected
            or change.shard != self._shard
            or change.incarnation != self._incarnation
        ):
            return f"change {expected} says it is another"
        self._epoch = change.epoch
        origin = Change(shard=change.shard, incarnation=change.incarnation, epoch=change.epoch)
        self._start = origin.SerializeToString() + _KEY_TAG
        return Record(expected, change.epoch, change.key.encode(), change.traceparent.encode(), value)


@lru_cache(4096)
def _body_starts(left: int) -> tuple[bytes, ...]:
    """How a body begins that takes all of the last `left` bytes: its tag and its length. None does: empty."""
    for length_bytes in range(1, 6):
        body = left - 1 - length_bytes
        if body >= 0 and len(length := varint(body)) == length_bytes:
            return tuple(tag + length for tag in _BODY_TAGS)
    return ()
