"""The end of every load test: `tollgate verify` over what its clients were told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tollgate.clock import rfc3339

SETTLE_S: Final = 2.0
REFUSALS: Final = frozenset({429, 503})  # "come again": a goal missed, and nothing wrong
_TIMEOUT_S: Final = 1800.0


def verified(client_logs: Sequence[Path], began_us: int, data_dir: Path | None = None) -> int:
    """Its exit code, with its table on our own output. Judged is what began at `began_us` or later."""
    logs = [argument for path in client_logs for argument in ("--client-log", str(path))]
    command = [sys.executable, "-m", "tollgate.cli.main", "verify", *logs, "--settle", str(SETTLE_S)]
    if data_dir is not None:
        command += ["--data-dir", str(data_dir)]
    print(f"tollgate verify of {', '.join(map(str, client_logs))}", flush=True)
    return subprocess.run([*command, "--since", rfc3339(began_us)], timeout=_TIMEOUT_S).returncode
