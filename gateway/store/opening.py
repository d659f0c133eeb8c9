"""Opening a store: who it is, which opening this is, and whether it tells a coherent story.

A new store gets a random incarnation; every opening raises the epoch, durably, before anything else is
written, to a number that no other opening has: half of it is counted, half is drawn. What was checked when it
was written is checked again here: a store that contradicts itself is not served.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from gateway.change_log import Identity, LogState, Mark
from gateway.store.holes import changes_after, missing_in_marks
from gateway.store.interface import Operation, Put, Store
from tollgate.errors import CorruptionError
from tollgate.shard_layout import (
    CHANGES,
    META,
    META_ACKNOWLEDGED,
    META_EPOCH,
    META_INCARNATION,
    META_LAST_SEQUENCE,
    META_MARK_PREFIX,
    META_PRUNED,
    META_SHARD,
    PAYMENTS,
    decode_u64,
    encode_u64,
)
from tollgate.v1.change_pb2 import Change
from tollgate.watermark import Watermark

INCARNATION_BYTES: Final = 16
_DRAWN_BYTES: Final = 4  # of an epoch; what is counted stands above them
_SCAN: Final = 1_000


class Opened(NamedTuple):
    identity: Identity
    log: LogState


def open_store(
    store: Store,
    shard: int,
    random_bytes: Callable[[int], bytes],
    watermark: Watermark | None = None,
) -> Opened:
    """`watermark` is what the last run left, None when it left nothing that can be read.

    Raises CorruptionError when the store is another shard's, contradicts itself or has lost what was durable;
    StoreFailed.
    """
    incarnation = store.get(META, META_INCARNATION)
    operations: list[Operation] = []
    if incarnation is None:
        _check_new(store, watermark)
        incarnation, before, log = random_bytes(INCARNATION_BYTES), 0, LogState()
        operations += [
            Put(META, META_INCARNATION, incarnation),
            Put(META, META_SHARD, encode_u64(shard)),
            *(
                Put(META, name, encode_u64(0))
                for name in (META_LAST_SEQUENCE, META_ACKNOWLEDGED, META_PRUNED)
            ),
        ]
    else:
        _check_owner(store, shard, incarnation)
        before = _number(store, META_EPOCH)
        log = _read_log(store, shard, incarnation)
        _check_nothing_durable_is_lost(Watermark(incarnation, before, log.last), watermark)
    epoch = next_epoch(before, random_bytes)
    store.write([*operations, Put(META, META_EPOCH, encode_u64(epoch))])
    store.flush()
    return Opened(Identity(shard, incarnation, epoch), log)


def next_epoch(before: int, random_bytes: Callable[[int], bytes]) -> int:
    """Above `before`, and unlike the epoch of any other opening.

    A store restored from an old copy, or one whose last opening a power cut took back, counts from where it
    was. An epoch that came again would give the same sequences to other changes, under one name: a tailer
    that knows the first of them would take the second for shipped.
    """
    counted = (before >> 8 * _DRAWN_BYTES) + 1
    return counted << 8 * _DRAWN_BYTES | int.from_bytes(random_bytes(_DRAWN_BYTES))


def newest_change_us(store: Store, log: LogState) -> int | None:
    """When the newest change was committed, by the clock of then. Raises StoreFailed."""
    raw = store.get(CHANGES, encode_u64(log.last))
    return None if raw is None else Change.FromString(raw).committed_at_us


def _check_new(store: Store, watermark: Watermark | None) -> None:
    if watermark is not None:
        raise _corrupt(
            f"it is empty, but its log was durable up to {watermark.sequence}: its database is gone"
        )
    if any(store.scan(family, b"", 1) for family in (META, CHANGES, PAYMENTS)):
        raise _corrupt("it holds records but no identity")


def _check_nothing_durable_is_lost(found: Watermark, watermark: Watermark | None) -> None:
    """Recovery ends at the first damaged record of the write-ahead log and says nothing about the rest."""
    if watermark is None:
        return
    if watermark.incarnation != found.incarnation:
        raise _corrupt("the watermark beside it is another store's")
    if watermark.epoch > found.epoch or watermark.sequence > found.sequence:
        raise _corrupt(
            f"it ends at sequence {found.sequence} of epoch {found.epoch}, but was durable up to "
            f"{watermark.sequence} of epoch {watermark.epoch}: payments that were acknowledged are missing"
        )


def _check_owner(store: Store, shard: int, incarnation: bytes) -> None:
    owner = _number(store, META_SHARD)
    if owner != shard:
        raise CorruptionError(
            f"This store belongs to shard {owner}, not to shard {shard}. Operator action: give each "
            "shard its own data folder; nothing was changed."
        )
    if len(incarnation) != INCARNATION_BYTES:
        raise _corrupt("its incarnation is not 16 bytes")


def _read_log(store: Store, shard: int, incarnation: bytes) -> LogState:
    last = _number(store, META_LAST_SEQUENCE)
    acknowledged = _number(store, META_ACKNOWLEDGED)
    pruned = _number(store, META_PRUNED)
    if last < acknowledged:
        raise _corrupt(
            f"it ends at sequence {last}, but {acknowledged} was acknowledged: "
            "changes that were shipped are missing"
        )
    if acknowledged < pruned:
        raise _corrupt(f"changes up to {pruned} were pruned, but only {acknowledged} is acknowledged")
    _check_end(store, shard, incarnation, last, pruned)
    marks = _read_marks(store)
    if missing := missing_in_marks(store, marks, pruned):
        raise _corrupt(missing)
    marked, total = (marks[-1].sequence, marks[-1].bytes_total) if marks else (pruned, 0)
    bytes_after, missing_change = changes_after(store, marked, last)
    if missing_change is not None:
        raise _corrupt(f"change {missing_change} is missing")
    return LogState(last, acknowledged, pruned, total + bytes_after, marks)


def _check_end(store: Store, shard: int, incarnation: bytes, last: int, pruned: int) -> None:
    """The last change is there and says what its key says; nothing follows it."""
    if store.scan(CHANGES, encode_u64(last + 1), 1):
        raise _corrupt(f"its change log goes on after {last}, its last sequence")
    if last == pruned:
        return
    raw = store.get(CHANGES, encode_u64(last))
    if raw is None:
        raise _corrupt(f"its last change, {last}, is missing")
    try:
        change = Change.FromString(raw)
    except DecodeError as error:
        raise _corrupt(f"its last change, {last}, can't be read") from error
    if (change.sequence, change.shard, change.incarnation) != (last, shard, incarnation):
        raise _corrupt(f"its last change, {last}, says that it is another")


def _read_marks(store: Store) -> tuple[Mark, ...]:
    marks: list[Mark] = []
    start = META_MARK_PREFIX
    while rows := [row for row in store.scan(META, start, _SCAN) if row[0].startswith(META_MARK_PREFIX)]:
        try:
            marks += [Mark.parse(key, value) for key, value in rows]
        except struct.error as error:
            raise _corrupt("one of its marks can't be read") from error
        start = rows[-1][0] + b"\0"
    return tuple(marks)


def _number(store: Store, name: bytes) -> int:
    raw = store.get(META, name)
    try:
        if raw is None:
            raise _corrupt(f"its {name.decode()} is missing")
        return decode_u64(raw)
    except struct.error as error:
        raise _corrupt(f"its {name.decode()} is not a number") from error


def _corrupt(what: str) -> CorruptionError:
    return CorruptionError(
        f"The store contradicts itself: {what}. Operator action: keep the folder for "
        "examination and give the shard an empty one, or restore the folder whole; "
        "what was shipped to Kafka is safe."
    )
