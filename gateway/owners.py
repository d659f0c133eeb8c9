"""Who may have a payment, by its checkout id: one version of the ring file as one shard sees it. Pure.

A payment is where its owner was when it was accepted, or, while that one could not be reached, on one of the
next two. So a shard that accepts an id asks whoever else owned it on a retained ring, and a shard that says
"there is none" asks the owner and the next two on every one. Shards that are retired are not asked: the
Ledger, which always is, has all of theirs.

A shard hears of every change of a payment while it owns the id, and may have missed what came before: before
it tells what it has, it is asked since when it owns the id without a break.

Both questions are on the way of every request: where an arc of the ring ends, the answers for all ids on it
are made before. An id never moves between shards that stay, so all rings together have no more arcs than the
shards have points, whatever the history.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final, TypeAlias
from zlib import crc32

from tollgate.ring_file import RingFile, ShardEntry
from tollgate.ring_hash import HOLDERS, Ring

NEVER: Final = 2**63 - 1
_Arc: TypeAlias = tuple[tuple[str, ...] | None, int]  # who is asked before accepting; owned since
_ALONE: Final[_Arc] = (None, 0)


class Owners:
    """Shards are named by their gRPC addresses; `addresses` are all that may be asked.

    Valid until `valid_until_us`, when the oldest ring of its history is forgotten.
    """

    def __init__(self, file: RingFile | None, own: int, now_us: int, retention_us: int) -> None:
        """Without a file the shard owns every id and always did."""
        self.version = 0 if file is None else file.version
        former = () if file is None else file.history
        retained = [ring for ring in former if ring.left_at_us + retention_us > now_us]
        self.valid_until_us = min((ring.left_at_us + retention_us for ring in retained), default=NEVER)
        shards = [] if file is None else [file.shards, *(ring.shards for ring in retained)]
        silent = {own} if file is None else {own, *file.retired}
        self._ids = {shard.name: shard.id for shard in chain(*shards)}
        self._addresses = _addresses(chain(*shards), silent)
        self.addresses = frozenset(self._addresses.values())
        self._rings = [Ring([shard.name for shard in entries]) for entries in shards]
        self._left_at_us = [ring.left_at_us for ring in retained]
        self._own = own
        self._ends = sorted({point for ring in self._rings for point in ring.points})
        arcs = [self._arc_to(end) for end in self._ends]
        self._arcs = [*arcs, *arcs[:1]]  # beyond the last end is the first arc again

    def asked_before_accepting(self, checkout_id: str) -> tuple[str, ...] | None:
        """The other shards that own the id or did. None: this shard alone, and nobody is to be asked."""
        return self._arc_of(checkout_id)[0]

    def owned_since_us(self, checkout_id: str) -> int:
        """Since when this shard alone has owned the id, and so heard of every change of its payment: 0 on all
        retained rings, NEVER when it doesn't own it now.
        """
        return self._arc_of(checkout_id)[1]

    def is_own(self, checkout_id: str) -> bool:
        """Whether this shard owns the id on the present ring."""
        return self.owned_since_us(checkout_id) < NEVER

    def asked_before_denying(self, checkout_id: str) -> tuple[str, ...]:
        """The other shards that may have the payment, the likeliest first."""
        names = chain.from_iterable(ring.preference(checkout_id, HOLDERS) for ring in self._rings)
        return self._askable(self._ids[name] for name in names)

    def _arc_of(self, checkout_id: str) -> _Arc:
        if not self._ends:
            return _ALONE
        return self._arcs[bisect_left(self._ends, crc32(checkout_id.encode()))]

    def _arc_to(self, end: int) -> _Arc:
        owners = [self._ids[ring.owner_at(end)] for ring in self._rings]
        if set(owners) == {self._own}:
            return _ALONE
        left_at_us = [NEVER, *self._left_at_us]  # by the others' rings, newest first
        since_us = next(at for at, owner in zip(left_at_us, owners, strict=True) if owner != self._own)
        return self._askable(dict.fromkeys(owners)), since_us

    def _askable(self, ids: Iterable[int]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self._addresses[shard] for shard in ids if shard in self._addresses))


def _addresses(shards: Iterator[ShardEntry], silent: set[int]) -> dict[int, str]:
    """The newest ring's word stands."""
    found: dict[int, str] = {}
    for shard in shards:
        if shard.id not in silent:
            found.setdefault(shard.id, shard.grpc)
    return found
