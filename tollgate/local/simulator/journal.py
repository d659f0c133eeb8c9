"""The ledger's file: append-only, one line a group commit, synced before anyone is answered.

A line is the CRC-32 of its payload in hex, a space, and a JSON array of the records that arrived during the
sync before it. A line is therefore the unit that a crash can tear: recovery drops a last line that is not
whole (its records were never answered) and takes any other damage as corruption, because a ledger with a
hole is no witness. What `commit` returned for survives `kill -9` and a power cut.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from zlib import crc32

import orjson

from tollgate.errors import ConfigurationError, CorruptionError, OperationalError

_HEADER_BYTES = 9


class Journal:
    """One writer per file (flock). Not thread-safe; `commit` belongs to one event loop."""

    def __init__(self, path: Path) -> None:
        """Opens or creates the file. Raises ConfigurationError when another process writes it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise ConfigurationError(
                f"The ledger {path} is written by another simulator. "
                "End that one or choose another data folder."
            ) from None
        _sync_directory(path.parent)
        self._flusher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._buffer: list[bytes] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._flushing: asyncio.Task[None] | None = None
        self.failure: OSError | None = None

    def recover(self) -> Iterator[Any]:
        """Every record in order; then the torn tail is gone and the file stands at its end.

        Read to the end before the first `append`. Raises CorruptionError on damage before the last line.
        """
        good = 0
        with os.fdopen(os.dup(self._fd), "rb") as file:
            file.seek(0)
            torn_at: int | None = None
            for line in file:
                if torn_at is not None:
                    raise CorruptionError(
                        f"The ledger {self.path} is damaged at byte {torn_at}, before its last line. "
                        "Restore it from a copy, or start with an empty data folder."
                    )
                records = _records(line)
                if records is None:
                    torn_at = good
                else:
                    yield from records
                    good += len(line)
        os.ftruncate(self._fd, good)
        os.lseek(self._fd, good, os.SEEK_SET)
        os.fdatasync(self._fd)

    def append(self, record: dict[str, Any]) -> None:
        """Puts `record` into the next group. It is durable once a later `commit` returns."""
        self._buffer.append(orjson.dumps(record))

    async def commit(self) -> None:
        """Returns when everything appended so far is synced. Raises OperationalError once a write has failed.

        An idle journal syncs at once; during a sync the next group forms.
        """
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush_groups())
        await waiter

    async def _flush_groups(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiters:
            group, self._buffer = self._buffer, []
            waiters, self._waiters = self._waiters, []
            if group and self.failure is None:
                try:
                    await loop.run_in_executor(self._flusher, self._write, group)
                except OSError as error:
                    self.failure = (
                        error  # what is on the disk is unknown from here on: nothing is answered any more
                    )
            for waiter in waiters:
                if waiter.done():
                    continue  # its caller went away
                if self.failure is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(_failed(self.path, self.failure))
        self._flushing = None

    def _write(self, group: list[bytes]) -> None:
        payload = b"[" + b",".join(group) + b"]"
        line = memoryview(b"%08x %b\n" % (crc32(payload), payload))
        while line:
            line = line[os.write(self._fd, line) :]
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Ends the flusher after what it is doing. What nobody committed is not written."""
        self._flusher.shutdown()
        os.close(self._fd)


def _records(line: bytes) -> list[Any] | None:
    """The records of one line, or None when it is not whole."""
    payload = line[_HEADER_BYTES:-1]
    if not line.endswith(b"\n") or line[:_HEADER_BYTES] != b"%08x " % crc32(payload):
        return None
    records: list[Any] = orjson.loads(payload)
    return records


def _failed(path: Path, error: OSError) -> OperationalError:
    return OperationalError(
        f"The ledger {path} could not be written ({error.strerror}). Make room or mend the disk; "
        "the simulator ends and is started again."
    )


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
