"""The durable watermark: how far a shard's change log is on disk, published to the process beside it.

A 48-byte file that the committer rewrites after each flush and the reader has mapped: incarnation (16
bytes), epoch (u64), durable sequence (u64), SHA-256 prefix over the three (16 bytes). A write is not
atomic across processes: the reader takes a value only when its digest fits, and otherwise reads again; torn
reads are seen, never believed. The file says nothing after a crash: the next open rewrites it with a
new epoch, and until then the records up to the old value are as durable as they were.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from pathlib import Path
from typing import Final, NamedTuple

from tollgate.errors import OperationalError

_BODY = struct.Struct("<16sQQ")
_DIGEST_BYTES: Final = 16
SIZE: Final = _BODY.size + _DIGEST_BYTES
_READ_ATTEMPTS: Final = 100


class Watermark(NamedTuple):
    """Everything up to `sequence`, of the store `incarnation` in its `epoch`-th opening, is fsynced."""

    incarnation: bytes
    epoch: int
    sequence: int


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()[:_DIGEST_BYTES]


class WatermarkWriter:
    """Owned by the committer; one writer per shard (RocksDB's lock decides)."""

    def __init__(self, path: Path) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # Allocated, not only sized: a store to a mapped page that a full disk can't back is a SIGBUS.
            os.posix_fallocate(fd, 0, SIZE)
            os.ftruncate(fd, SIZE)
        except OSError:
            os.close(fd)
            raise
        self._fd = fd

    def publish(self, watermark: Watermark) -> None:
        """Raises OperationalError.

        Written, not stored into a mapping: a write is what the kernel tells the reader of, and one that the
        disk has no block for is an error here and not the end of the process.
        """
        body = _BODY.pack(*watermark)
        try:
            os.pwrite(self._fd, body + _digest(body), 0)
        except OSError as error:
            raise OperationalError(f"The watermark can't be written: {error.strerror}.") from error

    def close(self) -> None:
        os.close(self._fd)


class WatermarkReader:
    """Reads what the writer published. Raises FileNotFoundError while there is no whole file yet."""

    def __init__(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY)
        try:
            if os.fstat(fd).st_size != SIZE:
                raise FileNotFoundError(f"{path} is not a watermark yet")
            self._map = mmap.mmap(fd, SIZE, access=mmap.ACCESS_READ)
        finally:
            os.close(fd)

    def read(self) -> Watermark | None:
        """The newest published value, or None when nothing valid has been published yet."""
        for _ in range(_READ_ATTEMPTS):
            raw = self._map[:]
            body = raw[: _BODY.size]
            if raw[_BODY.size :] == _digest(body):
                return Watermark(*_BODY.unpack(body))
        return None

    def close(self) -> None:
        self._map.close()


def read_watermark(path: Path) -> Watermark | None:
    """What was published last, or None when there is none."""
    try:
        reader = WatermarkReader(path)
    except FileNotFoundError:
        return None
    try:
        return reader.read()
    finally:
        reader.close()
