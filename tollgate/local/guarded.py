"""The supervisor's side of the guardian: starts it, tells it of every process group, replaces it when it
dies.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tollgate.local import guardian

_CLOSE_TIMEOUT_S = 5.0


class Guardian:
    """Not for threads. A guardian that died is replaced at the next word to it, or by `ensure_alive`."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._leaders: set[int] = set()
        self._process = self._start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def add(self, leader: int) -> None:
        self._leaders.add(leader)
        self._tell(f"+{leader}\n")

    def remove(self, leader: int) -> None:
        self._leaders.discard(leader)
        self._tell(f"-{leader}\n")

    def ensure_alive(self) -> None:
        if self._process.poll() is not None:
            self._replace()

    def close(self) -> None:
        """Call when everything was ended: the guardian finds nothing left and goes."""
        self._close_pipe()
        try:
            self._process.wait(_CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None  # noqa: S101 - it is started with a pipe
        try:
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            self._replace()

    def _replace(self) -> None:
        self._close_pipe()
        self._process.wait()
        self._process = self._start()
        for leader in self._leaders:
            self._tell(f"+{leader}\n")

    def _close_pipe(self) -> None:
        assert self._process.stdin is not None  # noqa: S101
        with suppress(BrokenPipeError):  # what was not yet sent is told to its successor
            self._process.stdin.close()

    def _start(self) -> subprocess.Popen[bytes]:
        """In a session of its own: no signal to the supervisor's group or terminal reaches it."""
        script = Path(guardian.__file__)
        return subprocess.Popen(
            (sys.executable, "-I", "-S", str(script), self._run_id),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
