"""Who may have a payment, by its checkout id: one version of the ring file as one shard sees it. Pure.

A payment is where its owner was when it was accepted, or, while that one could not be reached, on one of the
next two. So a shard that accepts an id asks whoever else owned it on a retained ring, and a shard that says
"there is none" asks the owner and the next two on every one. Shards that are retired are not asked: the
Ledger, which always is, has all of theirs.

The first question is on the way of every POST: where an arc of the ring ends, the answer for all ids on it is
made before. An id never moves between shards that stay, so all rings together have no more arcs than the
shards have points, whatever the history.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final
from zlib import crc32

from tollgate.ring_file import RingFile, ShardEntry
from tollgate.ring_hash import HOLDERS, Ring

_NEVER: Final = 2**63 - 1


class Owners:
    """Shards are named by their gRPC addresses; `addresses` are all that may be asked.

    Valid until `valid_until_us`, when the oldest ring of its history is forgotten.
    """

    def __init__(self, file: RingFile | None, own: int, now_us: int, retention_us: int) -> None:
        """Without a file the shard owns every id and always did."""
        self.version = 0 if file is None else file.version
        former = () if file is None else file.history
        retained = [ring for ring in former if ring.left_at_us + retention_us > now_us]
        self.valid_until_us = min((ring.left_at_us + retention_us for ring in retained), default=_NEVER)
        shards = [] if file is None else [file.shards, *(ring.shards for ring in retained)]
        silent = {own} if file is None else {own, *file.retired}
        self._ids = {shard.name: shard.id for shard in chain(*shards)}
        self._addresses = _addresses(chain(*shards), silent)
        self.addresses = frozenset(self._addresses.values())
        self._rings = [Ring([shard.name for shard in entries]) for entries in shards]
        self._own = own
        self._ends = sorted({point for ring in self._rings for point in ring.points})
        asked = [self._owners_at(end) for end in self._ends]
        self._asked = [*asked, *asked[:1]]  # beyond the last end is the first arc again

    def asked_before_accepting(self, checkout_id: str) -> tuple[str, ...] | None:
        """The other shards that own the id or did. None: this shard alone, and nobody is to be asked."""
        if not self._ends:
            return None
        return self._asked[bisect_left(self._ends, crc32(checkout_id.encode()))]

    def is_own(self, checkout_id: str) -> bool:
        """Whether this shard owns the id on the present ring, and so hears of every change of its payment."""
        return not self._rings or self._ids[self._rings[0].owner(checkout_id)] == self._own

    def asked_before_denying(self, checkout_id: str) -> tuple[str, ...]:
        """The other shards that may have the payment, the likeliest first."""
        names = chain.from_iterable(ring.preference(checkout_id, HOLDERS) for ring in self._rings)
        return self._askable(self._ids[name] for name in names)

    def _owners_at(self, end: int) -> tuple[str, ...] | None:
        owners = dict.fromkeys(self._ids[ring.owner_at(end)] for ring in self._rings)
        return None if set(owners) == {self._own} else self._askable(owners)

    def _askable(self, ids: Iterable[int]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self._addresses[shard] for shard in ids if shard in self._addresses))


def _addresses(shards: Iterator[ShardEntry], silent: set[int]) -> dict[int, str]:
    """The newest ring's word stands."""
    found: dict[int, str] = {}
    for shard in shards:
        if shard.id not in silent:
            found.setdefault(shard.id, shard.grpc)
    return found
