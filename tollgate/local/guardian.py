"""The guardian: a tiny process that outlives a killed supervisor just long enough to end what it started.

It reads `+pid` and `-pid` lines (leaders of process groups) from a pipe whose only writer is the supervisor.
The pipe's end means that the supervisor is gone: every group that is still registered is killed, and then
every process whose environment names the run, which covers one that was started and not registered yet.

Run as a script under `python -I -S`, so it imports the standard library only and weighs little.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress

RUN_VARIABLE = "TOLLGATE_RUN"
_ROUNDS_MAX = 50
_PAUSE_S = 0.02


def kill_groups(leaders: Iterable[int]) -> None:
    for leader in leaders:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)


def processes_of_run(run_id: str) -> list[int]:
    """Processes, but this one, whose environment names the run. Empty where there is no /proc."""
    marker = f"{RUN_VARIABLE}={run_id}".encode()
    found = []
    with suppress(FileNotFoundError):
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid() and _has_variable(name, marker):
                found.append(int(name))
    return found


def _has_variable(pid: str, marker: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return marker in file.read().split(b"\0")
    except OSError:  # gone, or another user's
        return False


def end_run(run_id: str, leaders: Iterable[int]) -> None:
    """Kills the groups and then, until there are none, the processes of the run: a few times a few ms."""
    kill_groups(leaders)
    for _ in range(_ROUNDS_MAX):
        left = processes_of_run(run_id)
        if not left:
            return
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_PAUSE_S)


def main() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    leaders: set[int] = set()
    for line in sys.stdin:
        with suppress(ValueError):  # a line cut off by the supervisor's death
            if line.startswith("+"):
                leaders.add(int(line[1:]))
            else:
                leaders.discard(int(line[1:]))
    end_run(sys.argv[1], leaders)


if __name__ == "__main__":
    main()
