"""The store on RocksDB. Owns the database's folder (RocksDB's own lock decides) and translates its errors.

Every bare Exception of rocksdict ends here: a refused write is StoreBusy, all else is StoreFailed. After a
failed fsync RocksDB may heal itself and go on; the shard must not, because what it acknowledged later would
stand on a record that may be missing (https://wiki.postgresql.org/wiki/Fsync_Errors).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from rocksdict import Cache, Rdict, WriteBatch, WriteOptions

from gateway.errors import StoreBusy, StoreFailed
from gateway.store.interface import Delete, Operation, Put
from gateway.store.tuning import Tuning, database_options, family_options
from tollgate.errors import CorruptionError, OperationalError
from tollgate.shard_layout import COLUMN_FAMILIES

# What RocksDB says, and what a person does about it.
_ADVICE: Final = {
    "lock": "end the process that holds it",
    "No space left": "free space on the volume",
    "Too many open files": "raise the limit of open files",
    "Read-only file system": "mend the disk and mount it writable",
    "Permission denied": "give the shard's user the folder",
}
_TUNING: Final = Tuning()


class _Translated:
    """Around a call of RocksDB. Made once each: a generator in its place costs a GET a microsecond."""

    def __init__(self, action: str) -> None:
        self._action = action

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, Exception):
            return
        text = str(error)
        if text.startswith("Result incomplete: Write stall"):
            raise StoreBusy("The store is behind with its own work. Retry with the same id.") from error
        raise StoreFailed(f"A {self._action} of the store failed: {text}. {_advice(text)}") from error


_READING: Final = _Translated("read")
_WRITING: Final = _Translated("write")
_SYNCING: Final = _Translated("fsync")
_CLOSING: Final = _Translated("close")


class RocksStore:
    """Opens or creates the database in `path`. Raises CorruptionError or OperationalError when it can't."""

    def __init__(self, path: Path, tuning: Tuning = _TUNING) -> None:
        path.mkdir(parents=True, exist_ok=True)
        cache = Cache(tuning.block_cache)
        try:
            self._db = Rdict(
                str(path),
                database_options(tuning),
                column_families={family: family_options(tuning, family, cache) for family in COLUMN_FAMILIES},
            )
            self._families = {family: self._db.get_column_family(family) for family in COLUMN_FAMILIES}
            self._handles = {family: self._db.get_column_family_handle(family) for family in COLUMN_FAMILIES}
        except Exception as error:  # rocksdict raises nothing more specific
            raise _open_error(path, error) from error
        self._write_options = WriteOptions()
        self._write_options.no_slowdown = True  # a stall would freeze the event loop for seconds

    def get(self, family: str, key: bytes) -> bytes | None:
        with _READING:
            value: bytes | None = self._families[family].get(key)
            return value

    def get_many(self, family: str, keys: Sequence[bytes]) -> list[bytes | None]:
        with _READING:
            values: list[bytes | None] = self._families[family].get(list(keys)) or []
            return values

    def scan(self, family: str, start: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        with _READING:
            cursor = self._families[family].iter()
            cursor.seek(start)
            while len(found) < limit and cursor.valid():
                found.append((cursor.key(), cursor.value()))
                cursor.next()
            cursor.status()  # an iterator that met an error just ends
        return found

    def write(self, operations: Sequence[Operation]) -> None:
        with _WRITING:
            batch = WriteBatch(raw_mode=True)
            for operation in operations:
                handle = self._handles[operation.family]  # without a handle it would go to `default`
                if isinstance(operation, Put):
                    batch.put(operation.key, operation.value, handle)
                elif isinstance(operation, Delete):
                    batch.delete(operation.key, handle)
                else:
                    batch.delete_range(operation.begin, operation.end, handle)
            self._db.write(batch, self._write_options)

    def flush(self) -> None:
        with _SYNCING:
            self._db.flush_wal(sync=True)

    def property(self, family: str, name: str) -> int:
        """A number that RocksDB keeps of `family`. Raises StoreFailed."""
        with _READING:
            value = self._families[family].property_int_value(name)
        if value is None:
            raise StoreFailed(f"RocksDB has no property {name}.")
        return value

    def close(self) -> None:
        if not self._families:
            return
        # The lock is held until the last handle is gone.
        self._handles.clear()
        handles = (*self._families.values(), self._db)
        self._families.clear()
        with _CLOSING:
            for handle in handles:
                handle.close()


def _open_error(path: Path, error: Exception) -> OperationalError | CorruptionError:
    text = str(error)
    if _is_damage(text):
        return CorruptionError(f"The store in {path} is damaged: {text}. {_advice(text)}")
    return OperationalError(f"The store in {path} can't be opened: {text}. {_advice(text)}")


def _is_damage(text: str) -> bool:
    """A file that the database names and that is not there is damage too."""
    return "Corruption" in text or "No such file or directory" in text


def _advice(text: str) -> str:
    if _is_damage(text):
        return (
            "Operator action: keep the folder for examination and restore it, or give the shard an empty "
            "one; what was shipped to Kafka is safe."
        )
    for sign, advice in _ADVICE.items():
        if sign in text:
            return f"Operator action: {advice}, then start the shard again."
    return "Operator action: look at the disk and the kernel's log, then start the shard again."
