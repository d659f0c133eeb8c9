"""Starting, awaiting and ending one part's process group. The supervisor and the tests both use it.

Every part leads a process group of its own and inherits no descriptor but its log, so that ending the group
ends whatever the part left behind (nginx workers, Postgres backends).
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from contextlib import suppress

from tollgate.errors import OperationalError
from tollgate.local.part import Part

_POLL_S = 0.02


def start(part: Part) -> subprocess.Popen[bytes]:
    """Prepares and starts `part`; returns at once. Raises OSError or TollgateError when that fails."""
    part.prepare()
    part.log.parent.mkdir(parents=True, exist_ok=True)
    with part.log.open("ab") as log:
        return subprocess.Popen(
            part.argv,
            cwd=part.cwd,
            env={**os.environ, **part.env},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,
            user=part.user,
            group=part.group,
            extra_groups=[] if part.user is not None else None,
            umask=0o077,
        )


async def wait_ready(part: Part, process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """Returns once `part` is ready. Raises OperationalError when it exits first or `timeout_s` passes."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not await part.is_ready():
        if process.poll() is not None:
            raise OperationalError(
                f"{part.name} ended with code {process.returncode} before it was ready. Read {part.log}."
            )
        if asyncio.get_running_loop().time() > deadline:
            raise OperationalError(f"{part.name} was not ready within {timeout_s:g} s. Read {part.log}.")
        await asyncio.sleep(_POLL_S)


async def stop(part: Part, process: subprocess.Popen[bytes]) -> None:
    """Ends the part: its stop signal, a bounded wait, then SIGKILL to the whole group. Reaps the leader."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            process.send_signal(part.stop_signal)
        deadline = asyncio.get_running_loop().time() + part.stop_timeout_s
        while process.poll() is None and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_POLL_S)
    kill_group(process.pid)
    process.wait()


def kill_group(leader_pid: int) -> None:
    """SIGKILL to whatever is left of the process group that `leader_pid` led."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader_pid, signal.SIGKILL)
