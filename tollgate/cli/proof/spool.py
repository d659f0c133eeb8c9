"""Everything that the witnesses say, sorted by payment, in memory that doesn't grow with their number.

A Grace hash join (Kitsuregawa et al., 1983): each record is written to the one of 256 files that its
payment's key hashes to, then file after file is taken into memory whole. A million payments are 4,000 a file.
The folder is the caller's; what is in it after a crash is of no use to anybody.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self
from zlib import crc32

from tollgate.cli.proof.testimony import Kind, Witnessed, add, packed
from tollgate.errors import OperationalError

BUCKETS: Final = 256
_AT_ONCE: Final = 128  # records of a bucket that wait in memory
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

    def add(self, kind: Kind, key: str, record: Iterable[Any]) -> None:
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

    def buckets(self) -> Iterator[list[Witnessed]]:
        """All payments, a bucket at a time; nothing can be added any more."""
        for number in range(BUCKETS):
            self._write(number)
            self._files[number].close()
        for number in range(BUCKETS):
            yield self._bucket(number)

    def _bucket(self, number: int) -> list[Witnessed]:
        found: dict[str, Witnessed] = {}
        for kind, key, record in self._records(number):
            testimony = found.get(key)
            if testimony is None:
                testimony = found[key] = Witnessed(key)
            add(testimony, Kind(kind), record)
        return list(found.values())

    def _records(self, number: int) -> Iterator[tuple[int, str, tuple[Any, ...]]]:
        with self._path(number).open("rb") as file:
            while length := file.read(_LENGTH_BYTES):
                yield from marshal.loads(file.read(int.from_bytes(length, "big")))  # noqa: S302 - our own file

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:03d}"
