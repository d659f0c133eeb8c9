"""Which relay slices are ours: advisory locks of one session, shared evenly among the live processors.

A slice is held by at most one session. A session that ends, however, frees its slices and is counted no more.
"""

from __future__ import annotations

from typing import Final

from processor.storage.database import Connection, translated
from processor.storage.payments import SLICES

_SLICE_LOCKS: Final = 0x746F6701
_PRESENCE_LOCK: Final = 0x746F6702

_ENTER: Final = "SELECT pg_advisory_lock_shared($1::integer, 0)"
_LIVE: Final = """
SELECT count(*) FROM pg_locks
WHERE locktype = 'advisory' AND classid = $1::bigint::oid AND objid = 0 AND objsubid = 2 AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_TRY: Final = "SELECT pg_try_advisory_lock($1::integer, $2::integer)"
_FREE: Final = "SELECT pg_advisory_unlock($1::integer, $2::integer)"


class SliceLease:
    """The slices that one session holds. Call `refresh` about once a second."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._present = False
        self.held: list[int] = []

    async def refresh(self) -> None:
        """Gives back what is above our even share, and takes what is free below it."""
        with translated("sharing the relay's slices"):
            if not self._present:
                await self._connection.execute(_ENTER, _PRESENCE_LOCK)
                self._present = True
            live = await self._connection.fetchval(_LIVE, _PRESENCE_LOCK)
            share = fair_share(live)
            while len(self.held) > share:
                await self._connection.execute(_FREE, _SLICE_LOCKS, self.held.pop())
            for free in (number for number in range(SLICES) if number not in self.held):
                if len(self.held) >= share:
                    break
                if await self._connection.fetchval(_TRY, _SLICE_LOCKS, free):
                    self.held.append(free)


def fair_share(live: int) -> int:
    """At most this many slices a processor: together they cover all, whoever is missing."""
    return -(-SLICES // max(1, live))
