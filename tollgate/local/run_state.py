"""`supervisor.json`: how each part is doing, for `tollgate up`, `status` and `down`. No secrets.

Written by the supervisor alone at every change. After a supervisor was killed it names the processes that may
be left, which is how they are found and ended.
"""

from __future__ import annotations

import enum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from tollgate.files import replace_file


class PartStatus(enum.StrEnum):
    STARTING = "starting"  # prepared or started, not ready yet
    READY = "ready"
    UNREADY = "unready"  # was ready and says now that it isn't
    WAITING = "waiting"  # died, comes back after a pause
    STOPPING = "stopping"
    STOPPED = "stopped"


class PartState(BaseModel):
    """Mutable on purpose: its runner keeps it true. `pid` is that of the process started last."""

    model_config = ConfigDict(extra="forbid")

    name: str
    log: str
    status: PartStatus = PartStatus.STARTING
    pid: int | None = None
    started_at: float | None = None  # seconds since the epoch
    was_ready: bool = False
    restarts: int = 0
    detail: str = ""  # why it isn't ready, as far as known


class RunState(BaseModel):
    """One life of a supervisor. `run_id` stands in the environment of every process that it started."""

    model_config = ConfigDict(extra="forbid")

    run_id: str
    supervisor_pid: int
    started_at: float
    parts: list[PartState]
    topics_ready: bool = False
    topics_detail: str = ""

    @property
    def all_ready(self) -> bool:
        return self.topics_ready and all(part.status is PartStatus.READY for part in self.parts)


def read_run_state(path: Path) -> RunState | None:
    """None when there is none, or none that can be read: it is knowledge about processes, not data."""
    try:
        return RunState.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def write_run_state(path: Path, state: RunState) -> None:
    replace_file(path, state.model_dump_json(indent=2) + "\n")
