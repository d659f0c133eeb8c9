"""The ring and its history in one versioned file: what nginx is rendered from and what every part reads.

JSON, replaced atomically. A shard's id is 0–63, ascending and never reused; its name is what nginx
hashes, so it follows the id for ever. `history` holds earlier rings, newest first, with the time they
were left; `retired` names the shards of them that nobody needs to ask any more.

Every reader looks several times a second. A shard shows the version it goes by as `tollgate_ring_version`:
who changes the ring sends requests by it (reloads nginx) once every shard has it, so that whoever gets a
moved key knows whom to ask about it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tollgate.errors import CorruptionError
from tollgate.files import replace_file
from tollgate.ring_hash import Ring
from tollgate.topics import SHARDS_MAX


class ShardEntry(BaseModel):
    """One shard as others reach it: `name` is host:port as nginx writes it, `grpc` host:port."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[int, Field(ge=0, lt=SHARDS_MAX)]
    name: str
    grpc: str


class FormerRing(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    left_at_us: int
    shards: tuple[ShardEntry, ...]


class RingFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Annotated[int, Field(ge=1)]
    next_id: Annotated[int, Field(ge=0, le=SHARDS_MAX)]
    shards: Annotated[tuple[ShardEntry, ...], Field(min_length=1)]
    history: tuple[FormerRing, ...] = ()
    # Off the ring and drained: Postgres has every change that they shipped, and the Ledger speaks for them.
    retired: tuple[int, ...] = ()
    # A change of the ring that is under way: started and not on the ring yet; off it and not stopped yet.
    joining: ShardEntry | None = None
    leaving: ShardEntry | None = None

    @property
    def running(self) -> tuple[ShardEntry, ...]:
        """Every shard that has processes, by id."""
        others = (shard for shard in (self.joining, self.leaving) if shard is not None)
        return tuple(sorted((*self.shards, *others), key=lambda shard: shard.id))

    def ring(self) -> Ring:
        return Ring([shard.name for shard in self.shards])

    def owner(self, key: str) -> ShardEntry:
        """The shard that nginx would send `key` (a checkout id) to."""
        name = self.ring().owner(key)
        return next(shard for shard in self.shards if shard.name == name)


def read_ring_file(path: Path) -> RingFile:
    """Raises CorruptionError when the file can't be a ring, FileNotFoundError when there is none."""
    try:
        return RingFile.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise CorruptionError(
            f"The ring file {path} can't be read ({error.error_count()} problems). "
            "Restore it from the deployment; nothing was changed."
        ) from error


class RingReader:
    """Notices that the file was replaced, by one stat (2 us)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None

    def changed(self) -> RingFile | None:
        """The ring, unless it is the file that was read last. Raises what `read_ring_file` does, OSError."""
        stat = self._path.stat()
        seen = (stat.st_ino, stat.st_mtime_ns)
        if seen == self._seen:
            return None
        ring = read_ring_file(self._path)
        self._seen = seen
        return ring


def write_ring_file(path: Path, ring: RingFile) -> None:
    """Replaces the file atomically and durably."""
    replace_file(path, ring.model_dump_json(indent=2), mode=0o644)  # nothing in it is secret
