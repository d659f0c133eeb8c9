"""Who owns a checkout id on the ring as it is now: the ring file, read again when it was replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import structlog

from tollgate.clock import Clock
from tollgate.errors import CorruptionError
from tollgate.ring_file import RingReader
from tollgate.ring_hash import Ring

# A snapshot that goes out by the former ring is missed by the new owner until the next one.
_LOOK_AGAIN_S: Final = 0.2

_log = structlog.get_logger()


class RingOwners:
    """Without a readable file it keeps the last ring; before the first there is no owner."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._reader = RingReader(path)
        self._clock = clock
        self._look_at = clock.monotonic()
        self._ring: Ring | None = None
        self._ids: dict[str, int] = {}
        self._unreadable = False

    def owner(self, checkout_id: str) -> int | None:
        """The owning shard's id."""
        if self._clock.monotonic() >= self._look_at:
            self._look_at = self._clock.monotonic() + _LOOK_AGAIN_S
            self._read()
        return None if self._ring is None else self._ids[self._ring.owner(checkout_id)]

    def _read(self) -> None:
        try:
            ring = self._reader.changed()
        except (OSError, CorruptionError) as error:
            if not self._unreadable:  # said once
                _log.warning("ring_unreadable", detail=f"{error} The last known ring is kept.")
            self._unreadable = True
            return
        self._unreadable = False
        if ring is not None:
            self._ring = ring.ring()
            self._ids = {shard.name: shard.id for shard in ring.shards}
