"""A shard's change log for a command that looks at it once: beside the shard and its tailer, whether they run
or are down. Reads only; its own secondary lives in a temporary folder and goes with it.
"""

from __future__ import annotations

import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from rocksdict import AccessType, Options, Rdict, RdictIter

from cdc.source import secondary_options, translated
from cdc.tailer import Identity
from tollgate.errors import OperationalError
from tollgate.shard_layout import (
    CHANGES,
    DATABASE_DIR,
    META,
    META_ACKNOWLEDGED,
    META_EPOCH,
    META_INCARNATION,
    META_LAST_SEQUENCE,
    META_MARK_PREFIX,
    META_PRUNED,
    META_SHARD,
    WATERMARK_FILE,
    decode_u64,
    encode_u64,
)
from tollgate.watermark import Watermark, WatermarkReader

_ROWS_AT_ONCE: Final = 2_000
_SEEN_S: Final = 5.0  # a durable change is visible to a secondary at once; a busy machine gets this long
_LOOK_AGAIN_S: Final = 0.05


class LogState(NamedTuple):
    """As the store says it now."""

    shard: int
    identity: Identity
    acknowledged: int
    pruned: int
    last: int  # as the secondary sees it; what is above `durable` may still be lost
    watermark: Watermark | None  # None: the shard has published none, or its file is not whole

    @property
    def durable(self) -> int:
        """What is certainly on disk: what the watermark says of this store, else what Kafka has."""
        mark = self.watermark
        known = mark.sequence if mark is not None and mark.incarnation == self.identity.incarnation else 0
        return max(known, self.acknowledged)


class ShardLog:
    """Opened at once. Every error is an OperationalError that names the folder."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._database = data_dir / DATABASE_DIR
        if not (self._database / "CURRENT").exists():
            raise OperationalError(
                f"There is no store in {self._database}. Name a shard's data folder, or start the shard once."
            )
        self._scratch = tempfile.TemporaryDirectory(prefix="tollgate-secondary-")
        try:
            self._open()
        except OperationalError:
            self._scratch.cleanup()
            raise

    def _open(self) -> None:
        with translated(f"opening {self._database} as a secondary"):
            self._db = Rdict(
                str(self._database),
                secondary_options(),
                column_families={family: Options(raw_mode=True) for family in ("default", CHANGES, META)},
                access_type=AccessType.secondary(self._scratch.name),
            )
            self._changes = self._db.get_column_family(CHANGES)
            self._meta = self._db.get_column_family(META)

    def look(self) -> LogState:
        """Catches up first."""
        numbers = (META_ACKNOWLEDGED, META_PRUNED, META_LAST_SEQUENCE)
        watermark = self._watermark()  # ahead of the store: what it says must then be seen there
        with translated(f"reading {self._database}"):
            self._db.try_catch_up_with_primary()
            shard, incarnation, epoch = (
                self._meta.get(n) for n in (META_SHARD, META_INCARNATION, META_EPOCH)
            )
            counted = [self._meta.get(name) for name in numbers]
        if shard is None or incarnation is None or epoch is None:
            raise OperationalError(f"The store in {self._database} has no identity yet. Start the shard.")
        try:
            identity = Identity(incarnation, decode_u64(epoch))
            acknowledged, pruned, last = (decode_u64(raw) if raw is not None else 0 for raw in counted)
            return LogState(decode_u64(shard), identity, acknowledged, pruned, last, watermark)
        except struct.error as error:
            raise OperationalError(f"The identity of the store in {self._database} can't be read.") from error

    def reopen(self) -> None:
        """What a secondary doesn't see after catching up, a new one may."""
        self._close_database()
        self._open()

    def rows(self, after: int, up_to: int) -> Iterator[tuple[int, bytes]]:
        """The changes in (after, up_to] that there are, ascending. A few at a time: the taker may be slow."""
        while after < up_to:
            with translated(f"reading changes after {after} of {self._database}"):
                rows = _read(self._changes.iter(), after, up_to)
            yield from rows
            if len(rows) < _ROWS_AT_ONCE:
                return
            after = rows[-1][0]

    def value(self, sequence: int) -> bytes | None:
        with translated(f"reading change {sequence} of {self._database}"):
            found: bytes | None = self._changes.get(encode_u64(sequence))
            return found

    def bytes_between(self, after: int, up_to: int) -> int:
        """What the changes (after, up_to] weigh: by the log's marks, and a piece read at each end."""
        first = last = None
        with translated(f"reading the marks of {self._database}"):
            cursor = self._meta.iter()
            cursor.seek(META_MARK_PREFIX + encode_u64(after))
            while cursor.valid() and cursor.key().startswith(META_MARK_PREFIX):
                mark = (
                    decode_u64(cursor.key().removeprefix(META_MARK_PREFIX)),
                    decode_u64(cursor.value()[8:16]),
                )
                if mark[0] > up_to:
                    break
                first, last = first or mark, mark
                cursor.next()
            cursor.status()
        if first is None or last is None:
            return self._weigh(after, up_to)
        return self._weigh(after, first[0]) + last[1] - first[1] + self._weigh(last[0], up_to)

    def _weigh(self, after: int, up_to: int) -> int:
        return sum(len(value) for _sequence, value in self.rows(after, up_to))

    def look_until_seen(self) -> LogState:
        """Like `look`, with everything that is durable in sight. Raises OperationalError when it never is."""
        deadline = time.monotonic() + _SEEN_S
        while (state := self.look()).last < state.durable:
            if time.monotonic() > deadline:
                raise OperationalError(
                    f"The store in {self._database} ends at change {state.last}, though {state.durable} was "
                    "durable. Its end is lost, or it was put in place of another: look at the shard's log."
                )
            time.sleep(_LOOK_AGAIN_S)
            self.reopen()
        return state

    def close(self) -> None:
        self._close_database()
        self._scratch.cleanup()

    def _close_database(self) -> None:
        self._changes.close()
        self._meta.close()
        self._db.close()

    def _watermark(self) -> Watermark | None:
        try:
            reader = WatermarkReader(self.data_dir / WATERMARK_FILE)
        except FileNotFoundError:
            return None
        try:
            return reader.read()
        finally:
            reader.close()


def _read(cursor: RdictIter, after: int, up_to: int) -> list[tuple[int, bytes]]:
    rows: list[tuple[int, bytes]] = []
    cursor.seek(encode_u64(after + 1))
    while cursor.valid() and len(rows) < _ROWS_AT_ONCE:
        sequence = decode_u64(cursor.key())
        if sequence > up_to:
            break
        rows.append((sequence, cursor.value()))
        cursor.next()
    cursor.status()  # an iterator that met an error just ends
    return rows
