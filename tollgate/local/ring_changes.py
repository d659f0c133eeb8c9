"""How the ring file changes when a shard comes or goes: pure steps from one whole file to the next.

Adding: `joining` (the id is taken for ever) ▸ started and ready ▸ on the ring (`joined`) or `given_up`.
Removing: off the ring and `leaving` ▸ drained and `retired` ▸ `ended`. The file is the only
record of where a change stands: each step is written before what it allows is done, so whoever starts after
a crash reads from the file what is left to do.
"""

from __future__ import annotations

from typing import Final

from tollgate.errors import RejectedInput
from tollgate.ring_file import FormerRing, RingFile, ShardEntry
from tollgate.topics import SHARDS_MAX

# As long as a shard keeps payments: after that nobody can have one that only a former owner knows.
HISTORY_US: Final = 30 * 24 * 3600 * 1_000_000


def check_addable(ring: RingFile) -> None:
    """Raises RejectedInput when there is no id left."""
    if ring.next_id >= SHARDS_MAX:
        raise RejectedInput(
            f"All {SHARDS_MAX} shard ids are used up: an id is never given twice, and payments.status has "
            "one partition for each. Nothing was changed."
        )


def joining(ring: RingFile, name: str, grpc: str) -> RingFile:
    """A shard is about to be started. Raises RejectedInput when there is no id left."""
    check_addable(ring)
    entry = ShardEntry(id=ring.next_id, name=name, grpc=grpc)
    return ring.model_copy(update={"joining": entry, "next_id": ring.next_id + 1})


def given_up(ring: RingFile) -> RingFile:
    """The shard that was joining never was on the ring; its id stays taken."""
    return ring.model_copy(update={"joining": None})


def joined(ring: RingFile, now_us: int) -> RingFile:
    """The shard that was joining is on the ring."""
    if ring.joining is None:
        return ring
    return _changed(ring, (*ring.shards, ring.joining), now_us, {"joining": None})


def check_removable(ring: RingFile, shard: int) -> None:
    """Raises RejectedInput when `shard` isn't on the ring, or alone there."""
    ids = [entry.id for entry in ring.shards]
    if shard not in ids:
        known = ", ".join(map(str, ids))
        raise RejectedInput(f"There is no shard {shard} on the ring, only {known}. Nothing was changed.")
    if len(ids) == 1:
        raise RejectedInput(
            f"Shard {shard} is the only one: nobody could take payments without it. Nothing was changed. "
            "Add another first."
        )


def leaving(ring: RingFile, shard: int, now_us: int) -> RingFile:
    """`shard` is off the ring and drains. Raises RejectedInput when it can't be taken off."""
    check_removable(ring, shard)
    entry = next(entry for entry in ring.shards if entry.id == shard)
    rest = tuple(other for other in ring.shards if other != entry)
    return _changed(ring, rest, now_us, {"leaving": entry})


def is_retired(ring: RingFile) -> bool:
    """Whether the shard that is leaving need not be asked any more."""
    return ring.leaving is not None and ring.leaving.id in ring.retired


def retired(ring: RingFile) -> RingFile:
    """Postgres has all of the shard that is leaving. A version of its own: who knows it asks it no more."""
    if ring.leaving is None or is_retired(ring):
        return ring
    return ring.model_copy(update={"version": ring.version + 1, "retired": (*ring.retired, ring.leaving.id)})


def ended(ring: RingFile) -> RingFile:
    """The shard that was leaving has no process any more."""
    return ring.model_copy(update={"leaving": None})


def _changed(
    ring: RingFile, shards: tuple[ShardEntry, ...], now_us: int, update: dict[str, object]
) -> RingFile:
    left = FormerRing(version=ring.version, left_at_us=now_us, shards=ring.shards)
    kept = (former for former in ring.history if former.left_at_us > now_us - HISTORY_US)
    ascending = tuple(sorted(shards, key=lambda shard: shard.id))
    return ring.model_copy(
        update={"version": ring.version + 1, "shards": ascending, "history": (left, *kept), **update}
    )
