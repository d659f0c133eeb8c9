"""The ring file as this shard goes by it: read at the start, and again soon after it was replaced.

A file that can't be read later changes nothing: the last ring stands, and that is said once.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from gateway.owners import Owners
from tollgate.clock import Clock
from tollgate.errors import ConfigurationError, CorruptionError
from tollgate.ring_file import RingFile, RingReader

INTERVAL_S = 0.1  # a stat each time, 2 us

log = structlog.get_logger()


class RingWatch:
    """`look` is called again and again; `owners` is always whole."""

    def __init__(self, path: Path | None, own: int, retention_us: int, clock: Clock) -> None:
        """Raises ConfigurationError when there is no file, CorruptionError when it can't be a ring."""
        self._reader = None if path is None else RingReader(path)
        self._own = own
        self._retention_us = retention_us
        self._clock = clock
        self._unreadable = False
        self._file: RingFile | None = None
        try:
            self._file = None if self._reader is None else self._reader.changed()
        except OSError as error:
            raise ConfigurationError(
                f"The ring file {path} can't be read ({error.strerror}). "
                "Operator action: correct TOLLGATE_RING_FILE, or write the file, and start again."
            ) from error
        self._owners = self._owners_of(self._file)

    @property
    def owners(self) -> Owners:
        return self._owners

    async def look(self) -> bool:
        """Whether another ring stands now."""
        file = self._changed()
        if file is None and self._clock.now_us() < self._owners.valid_until_us:
            return False
        self._file = file or self._file
        # Half a second for 64 shards and 20 rings; with few of both a millisecond.
        self._owners = await asyncio.to_thread(self._owners_of, self._file)
        log.info("the ring changed", version=self._owners.version)
        return True

    def _changed(self) -> RingFile | None:
        try:
            file = None if self._reader is None else self._reader.changed()
        except (OSError, CorruptionError) as error:
            if not self._unreadable:
                log.error("the ring file can't be read; the last ring stands", reason=str(error))
            self._unreadable = True
            return None
        self._unreadable = False
        return file

    def _owners_of(self, file: RingFile | None) -> Owners:
        return Owners(file, self._own, self._clock.now_us(), self._retention_us)
