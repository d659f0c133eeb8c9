"""Whether something is missing in the middle of a store, though each of its files is sound.

RocksDB does not miss a write-ahead log that is gone, nor tables that a manifest cut short no longer names: it
opens with a hole. Marks, one to a piece of the change log, show it, because each leaves a trace in every
family and the families reach their tables at different times: in `meta` a mark names the one before it, in
`changes` it stands for a change, in `payments` it has a witness. Only a hole that no mark falls into, smaller
than a piece, can stay unseen; after the last mark every change is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.change_log import Mark
from gateway.store.interface import Store
from tollgate.shard_layout import CHANGES, PAYMENTS, decode_u64, encode_u64

# Their changes are read at start: the newest 256 MiB of the log, which is more than was still on its way to
# tables; what has been there longer is in files that RocksDB misses itself.
_CHANGES_CHECKED: Final = 1_024
_SCAN: Final = 1_000


def missing_in_marks(store: Store, marks: Sequence[Mark], pruned: int) -> str | None:
    """What is missing, or None."""
    previous = pruned
    for mark in marks:
        if mark.previous > previous:
            return f"a piece of its log between {previous} and {mark.sequence} is missing"
        previous = mark.sequence
    newest = marks[-_CHANGES_CHECKED:]
    changes = store.get_many(CHANGES, [encode_u64(mark.sequence) for mark in newest])
    for mark, change in zip(newest, changes, strict=True):
        if change is None:
            return f"change {mark.sequence} is missing"
    witnesses = store.get_many(PAYMENTS, [mark.witness() for mark in marks])
    for mark, witness in zip(marks, witnesses, strict=True):
        if witness is None:
            return f"payments that came with change {mark.sequence} are missing"
    return None


def changes_after(store: Store, sequence: int, last: int) -> tuple[int, int | None]:
    """(the bytes of the changes after `sequence` up to `last`, the first one that is missing)."""
    total = 0
    expected = sequence + 1
    while expected <= last:
        rows = store.scan(CHANGES, encode_u64(expected), _SCAN)
        for key, change in rows:
            if decode_u64(key) != expected:
                return total, expected
            total += len(change)
            expected += 1
        if not rows:
            return total, expected
    return total, None
