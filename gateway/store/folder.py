"""The shard's data folder before the store in it is opened: made, and asked whether it lost a database.

RocksDB makes a new database where CURRENT is missing, and removes what it does not know. So a folder that
holds a database without CURRENT, or a watermark without a database, is refused here: it is damage, not a new
shard. The watermark that the last run left says how far the log was durable then; it is in the page cache, so
it survives a kill exactly, and a power cut with what the kernel had written back, some seconds before.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from tollgate.errors import CorruptionError, OperationalError
from tollgate.shard_layout import DATABASE_DIR, WATERMARK_FILE
from tollgate.watermark import Watermark, WatermarkReader, WatermarkWriter

_CURRENT = "CURRENT"
_RECORDS = (".sst", ".log")


def prepare_folder(data_dir: Path) -> Watermark | None:
    """What the last run published, if it can be read. Raises CorruptionError and OperationalError."""
    database = data_dir / DATABASE_DIR
    try:
        _make_durably(database)
        _check_database(database)
        return _last_watermark(data_dir / WATERMARK_FILE)
    except OSError as error:
        raise _unusable(data_dir, error) from error


def open_watermark(data_dir: Path) -> WatermarkWriter:
    """Raises OperationalError."""
    try:
        return WatermarkWriter(data_dir / WATERMARK_FILE)
    except OSError as error:
        raise _unusable(data_dir, error) from error


def _make_durably(folder: Path) -> None:
    """A folder is its parent's record: what is fsynced in it is lost with it if that is not on disk too."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)


def _check_database(folder: Path) -> None:
    """A first start that was killed leaves neither CURRENT nor records: that one may begin again."""
    if (folder / _CURRENT).exists():
        return
    records = sorted(p.name for p in folder.iterdir() if p.suffix in _RECORDS and p.stat().st_size > 0)
    if records:
        raise CorruptionError(
            f"The store in {folder} is damaged: its file {_CURRENT} is missing, and {records[0]} "
            f"({len(records)} such files) holds records. Operator action: keep the folder for examination "
            "and restore it, or give the shard an empty data folder; what was shipped to Kafka is safe."
        )


def _last_watermark(path: Path) -> Watermark | None:
    with suppress(FileNotFoundError):
        reader = WatermarkReader(path)
        try:
            return reader.read()
        finally:
            reader.close()
    return None


def _unusable(data_dir: Path, error: OSError) -> OperationalError:
    return OperationalError(
        f"The data folder {data_dir} can't be used: {error.strerror} ({error.filename or data_dir}). "
        "Operator action: make it writable and give it space, or set TOLLGATE_SHARD__DATA_DIR, then start "
        "the shard again."
    )
