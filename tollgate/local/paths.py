"""Where everything of one stack lies: one folder, named once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class StackPaths:
    """`data_dir` is absolute."""

    data_dir: Path

    @property
    def stack_json(self) -> Path:
        return self.data_dir / "stack.json"

    @property
    def run_state(self) -> Path:
        return self.data_dir / "supervisor.json"

    @property
    def lock(self) -> Path:
        return self.data_dir / "supervisor.lock"

    @property
    def control(self) -> Path:
        return self.data_dir / "control.sock"

    @property
    def ring(self) -> Path:
        return self.data_dir / "ring.json"

    @property
    def logs(self) -> Path:
        return self.data_dir / "logs"

    @property
    def nginx(self) -> Path:
        return self.data_dir / "nginx"

    @property
    def kafka(self) -> Path:
        return self.data_dir / "kafka"

    @property
    def postgres(self) -> Path:
        return self.data_dir / "postgres"

    @property
    def simulator(self) -> Path:
        return self.data_dir / "simulator"

    @property
    def shards(self) -> Path:
        return self.data_dir / "shards"

    def shard(self, shard: int) -> Path:
        return self.shards / str(shard)

    def log(self, part: str) -> Path:
        return self.logs / f"{part}.log"


def choose_data_dir(given: Path | None) -> StackPaths:
    """`given` (--data-dir), else TOLLGATE_HOME, else ./.tollgate."""
    chosen = given or Path(os.environ.get("TOLLGATE_HOME") or ".tollgate")
    return StackPaths(chosen.expanduser().absolute())
