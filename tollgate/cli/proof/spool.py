"""Everything that the witnesses say, sorted by payment, in memory that doesn't grow with their number.

A Grace hash join (Kitsuregawa et al., 1983): each record is written to the one of 256 files, the buckets,
that its payment's key hashes to, then bucket after bucket is taken into memory: whole, or where it is large,
one share of its payments after the other, and the file is read again for each.
The folder is the caller's; what is in it after a crash is of no use to anybody.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self
from zlib import crc32

from tollgate.cli.proof.testimony import Kind, Witnessed, add, packed
from tollgate.errors import OperationalError

BUCKETS: Final = 256
IN_MEMORY_BYTES: Final = 8 << 20  # of a bucket's file; as objects it is some four times that
_AT_ONCE: Final = 64  # records of a bucket that wait in memory
_LENGTH_BYTES: Final = 4


class Spool:
    """Written first, then read. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: list[list[tuple[Any, ...]]] = [[] for _ in range(BUCKETS)]
        self._files: list[BinaryIO] = [self._path(number).open("wb") for number in range(BUCKETS)]
        self.records = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            file.close()

    def add(self, kind: Kind, key: str, record: tuple[Any, ...]) -> None:
        """Raises OperationalError when there is no room."""
        number = crc32(key.encode()) % BUCKETS
        waiting = self._waiting[number]
        waiting.append((int(kind), key, packed(record)))
        self.records += 1
        if len(waiting) >= _AT_ONCE:
            self._write(number)

    def _write(self, number: int) -> None:
        chunk = marshal.dumps(self._waiting[number])
        self._waiting[number] = []
        try:
            self._files[number].write(len(chunk).to_bytes(_LENGTH_BYTES, "big") + chunk)
        except OSError as error:
            raise OperationalError(
                f"No room to sort what the witnesses said in {self._folder} ({error.strerror}). "
                "Name another folder with TMPDIR."
            ) from error

    def buckets(self) -> list[Path]:
        """The files, for `shares_of`; nothing can be added any more."""
        for number in range(BUCKETS):
            self._write(number)
            self._files[number].close()
        return [self._path(number) for number in range(BUCKETS)]

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:03d}"


def shares_of(bucket: Path, in_memory_bytes: int = IN_MEMORY_BYTES) -> Iterator[list[Witnessed]]:
    """Every payment of the bucket once, with all that was said of it; so many at a time as memory is for."""
    shares = 1 + bucket.stat().st_size // in_memory_bytes
    for share in range(shares):
        found: dict[str, Witnessed] = {}
        for kind, key, record in _records(bucket):
            if shares > 1 and crc32(key.encode()) // BUCKETS % shares != share:
                continue
            testimony = found.get(key)
            if testimony is None:
                testimony = found[key] = Witnessed(key)
            add(testimony, Kind(kind), record)
        yield list(found.values())


def _records(bucket: Path) -> Iterator[tuple[int, str, tuple[Any, ...]]]:
    with bucket.open("rb") as file:
        while length := file.read(_LENGTH_BYTES):
            yield from marshal.loads(file.read(int.from_bytes(length, "big")))  # noqa: S302 - our own file
