"""`tollgate cdc verify` of the whole log, as a process of its own: its time and its memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.cdc.places import Places
from benchmarks.systems.builds import ROOT
from tollgate.errors import OperationalError


@dataclass(frozen=True)
class Measured:
    changes: int
    records: int  # repeats of earlier runs included
    seconds: float
    cpu_s: float
    peak_mb: float
    ok: bool

    @property
    def seconds_a_million(self) -> float:
        return self.seconds / self.changes * 1e6

    def __str__(self) -> str:
        return (
            f"tollgate cdc verify compares {self.changes:,} changes with {self.records:,} records in "
            f"{self.seconds:.1f} s ({self.cpu_s:.1f} s of CPU, at most {self.peak_mb:.0f} MB): "
            + ("all is well" if self.ok else "FINDINGS")
        )

    def document(self) -> dict[str, Any]:
        return asdict(self)


def measure(places: Places, service: str) -> Measured:
    """Blocking. Everything is shipped and acknowledged. Raises OperationalError when it can't check."""
    environment = {**os.environ, **places.tailer(service, {}).env}
    command = (sys.executable, "-m", "tollgate.cli.main", "cdc", "verify", "--wait", "30", "--json")
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complained:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=complained)
        _pid, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        complained.seek(0)
        if process.returncode not in (0, 1):
            raise OperationalError(f"tollgate cdc verify failed: {complained.read()[-500:].decode()}")
        report = json.loads(said.read())
    return Measured(
        changes=report["shards"][0]["compared"],
        records=report["records"],
        seconds=report["duration_s"],
        cpu_s=round(used.ru_utime + used.ru_stime, 2),
        peak_mb=round(used.ru_maxrss / 1024, 1),
        ok=report["ok"],
    )
