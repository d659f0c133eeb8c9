"""One part's life under the supervisor: prepare, start, watch, end what is left, wait, start again.

Promises: never gives up; never starts a part while anything of its process group is left; keeps its PartState
true and says so at every change. `stop` ends it for good, within the part's own bound.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog

from tollgate.errors import TollgateError
from tollgate.local import process
from tollgate.local.guarded import Guardian
from tollgate.local.part import Part
from tollgate.local.restart import RestartPolicy, RestartState, delay_before_restart
from tollgate.local.run_state import PartState, PartStatus

_PROBE_PAUSE_S: Final = 0.05
_PROBE_PAUSE_READY_S: Final = 2.0

_log = structlog.get_logger()


class PartRunner:
    """`child_ended` must be called whenever any child may have ended (SIGCHLD)."""

    def __init__(
        self, part: Part, guardian: Guardian, changed: Callable[[], None], policy: RestartPolicy | None = None
    ) -> None:
        self.part = part
        self.state = PartState(name=part.name, log=str(part.log))
        self._guardian = guardian
        self._changed = changed
        self._policy = policy or RestartPolicy()
        self._deaths = RestartState()
        self._stopping = asyncio.Event()
        self._child_ended = asyncio.Event()
        self._running: subprocess.Popen[bytes] | None = None

    def child_ended(self) -> None:
        self._child_ended.set()

    def stop(self) -> None:
        """`run` returns once the part has ended."""
        self._stopping.set()
        self._child_ended.set()

    def signal(self, number: signal.Signals) -> None:
        """To the part's process, when it has one."""
        if self._running is not None and self._running.poll() is None:
            self._running.send_signal(number)

    async def run(self) -> None:
        while not self._stopping.is_set():
            born = time.monotonic()
            await self._one_life()
            if not self._stopping.is_set():
                await self._pause(time.monotonic() - born)
        self._change(PartStatus.STOPPED)

    async def _one_life(self) -> None:
        try:
            running = await asyncio.to_thread(process.start, self.part)
        except (OSError, subprocess.SubprocessError, TollgateError) as error:
            self.state.detail = str(error)
            _log.error("could not start", child=self.part.name, error=str(error))
            return
        self._running = running
        self._guardian.add(running.pid)
        self.state.pid, self.state.started_at = running.pid, time.time()
        self._change(PartStatus.STARTING)
        probing = asyncio.create_task(self._probe())
        try:
            await self._until_ended_or_stopping(running)
        finally:
            probing.cancel()
            with suppress(asyncio.CancelledError):
                await probing
        await self._end(running)
        self._guardian.remove(running.pid)

    async def _until_ended_or_stopping(self, running: subprocess.Popen[bytes]) -> None:
        while running.poll() is None and not self._stopping.is_set():
            await self._child_ended.wait()
            self._child_ended.clear()

    async def _end(self, running: subprocess.Popen[bytes]) -> None:
        if self._stopping.is_set():
            self._change(PartStatus.STOPPING)
        else:
            self.state.detail = _how_it_ended(running.returncode)
            _log.warning("died", child=self.part.name, pid=running.pid, how=self.state.detail)
        await process.stop(self.part, running)

    async def _probe(self) -> None:
        while True:
            if await self.part.is_ready():
                self.state.was_ready = True
                self._change(PartStatus.READY)
            elif self.state.status is PartStatus.READY:
                self._change(PartStatus.UNREADY)
            ready = self.state.status is PartStatus.READY
            await asyncio.sleep(_PROBE_PAUSE_READY_S if ready else _PROBE_PAUSE_S)

    async def _pause(self, lived_s: float) -> None:
        delay_s = delay_before_restart(self._policy, self._deaths, lived_s)
        self._change(PartStatus.WAITING)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), delay_s)
        if not self._stopping.is_set():
            self.state.restarts += 1

    def _change(self, status: PartStatus) -> None:
        if status is PartStatus.READY:
            self.state.detail = ""
        if status is not self.state.status or status is PartStatus.STARTING:
            self.state.status = status
            self._changed()


def _how_it_ended(returncode: int) -> str:
    return f"killed by signal {-returncode}" if returncode < 0 else f"ended with code {returncode}"
