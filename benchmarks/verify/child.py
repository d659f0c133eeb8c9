"""Runs a `tollgate` command and leaves behind the most memory that it had: `child USAGE COMMAND…`."""

from __future__ import annotations

import atexit
import json
import resource
import sys
from pathlib import Path

from tollgate.cli.main import main


def leave_behind(usage: Path) -> None:
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    usage.write_text(json.dumps({"memory_mib_max": round(peak_kib / 1024, 1)}))


atexit.register(leave_behind, Path(sys.argv[1]))
sys.argv[1:] = sys.argv[2:]
main()
