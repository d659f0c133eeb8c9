"""The supervisor: runs every part of one stack, restarts what dies and keeps the files about it true.

One process, one event loop. All parts start at once (each tolerates that the others aren't there yet); the
topics are made when Kafka answers. Parts may be added and removed while it runs. Stopping goes in stages,
each bounded. If the supervisor itself is killed, its guardian ends everything; what survives is what the
parts keep on disk.
"""

from __future__ import annotations

import asyncio
import os
import resource
import secrets
import signal
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from tollgate.errors import TollgateError
from tollgate.local.guarded import Guardian
from tollgate.local.guardian import RUN_VARIABLE
from tollgate.local.logs import bound_logs
from tollgate.local.part import Part
from tollgate.local.run_state import PartStatus, RunState, write_run_state
from tollgate.local.runner import PartRunner

_HOUSEKEEPING_S: Final = 1.0
_TOPICS_RETRY_S: Final = 0.5
_OPEN_FILES: Final = 65536

_log = structlog.get_logger()


class Supervisor:
    """`stop_order` holds stages of name prefixes. `publish` is called with part → pid, all of them known, at
    each change, and with nothing at the end. `make_topics` is blocking and idempotent and raises
    TollgateError.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        stop_order: Sequence[tuple[str, ...]],
        run_state: Path,
        publish: Callable[[Mapping[str, int]], None],
        make_topics: Callable[[], None],
    ) -> None:
        run_id = secrets.token_hex(16)
        os.environ[RUN_VARIABLE] = run_id  # inherited by everything that is started, however deep
        self._guardian = Guardian(run_id)
        self._runners = {part.name: PartRunner(part, self._guardian, self._changed) for part in parts}
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._stop_order = stop_order
        self._run_state = run_state
        self._publish = publish
        self._topics = make_topics
        self._told = True
        self._state = RunState(
            run_id=run_id,
            supervisor_pid=os.getpid(),
            started_at=time.time(),
            parts=[runner.state for runner in self._runners.values()],
        )
        self._stop_requested = asyncio.Event()
        self._fault: BaseException | None = None

    async def run(self, *further: Coroutine[None, None, None]) -> None:
        """Returns after SIGTERM or SIGINT, when every part has ended; `further` run as long as the parts."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._child_ended)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_requested.set)
        self._changed()
        for name, runner in self._runners.items():
            self._lives[name] = self._watched(runner.run())
        chores = [self._watched(chore) for chore in (self._make_topics(), self._keep_house(), *further)]
        try:
            await self._stop_requested.wait()
        finally:
            self._stop_requested.set()
            for chore in chores:
                chore.cancel()
            await asyncio.wait(chores)
            for stage in self._stages():
                for name in stage:
                    self._runners[name].stop()
                await asyncio.gather(*(self._lives[name] for name in stage), return_exceptions=True)
            self._publish({})
            self._guardian.close()
        if self._fault is not None:
            raise self._fault

    def add(self, part: Part) -> None:
        """Starts one more part, which is restarted like any other. While `run` runs."""
        runner = self._runners[part.name] = PartRunner(part, self._guardian, self._changed)
        self._state.parts.append(runner.state)
        self._lives[part.name] = self._watched(runner.run())

    async def remove(self, name: str) -> None:
        """Ends a part within its bound and forgets it. Harmless when there is none."""
        if name in self._runners:
            self._runners[name].stop()
            await self._lives[name]
            self._state.parts.remove(self._runners[name].state)
            del self._runners[name], self._lives[name]
            self._changed()

    async def reload(self, name: str) -> None:
        """Prepares the part anew and sends it SIGHUP; one that is not running will start by what is prepared.

        Raises OSError and TollgateError like `prepare`.
        """
        await asyncio.to_thread(self._runners[name].part.prepare)
        self._runners[name].signal(signal.SIGHUP)

    def has(self, name: str) -> bool:
        return name in self._runners

    def status(self, name: str) -> PartStatus:
        return self._runners[name].state.status

    def pid(self, name: str) -> int | None:
        """Of the process that was started last."""
        return self._runners[name].state.pid

    def publish(self) -> None:
        """Writes the files anew, as something else that they tell of has changed."""
        self._changed()

    def _watched(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """What it raises is a fault of this program: everything is stopped, and `run` raises it."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fault = self._fault or error
            self._stop_requested.set()

    def _stages(self) -> Iterator[list[str]]:
        for prefixes in self._stop_order:
            yield [name for name in self._runners if name.startswith(prefixes)]

    def _child_ended(self) -> None:
        self._guardian.ensure_alive()
        for runner in self._runners.values():
            runner.child_ended()

    def _changed(self) -> None:
        self._told = False
        self._tell()

    def _tell(self) -> None:
        """Pids are published once each part has a process: none of them is ever null. A full disk stops
        nothing: the files are written again every second until they are true.
        """
        pids = {part.name: part.pid for part in self._state.parts if part.pid is not None}
        try:
            write_run_state(self._run_state, self._state)
            if len(pids) == len(self._state.parts) and not self._stop_requested.is_set():
                self._publish(pids)
        except OSError as error:
            _log.error("the state could not be written", error=str(error))
        else:
            self._told = True

    async def _make_topics(self) -> None:
        while not self._state.topics_ready:
            try:
                await asyncio.to_thread(self._topics)
            except TollgateError as error:
                self._note_topics(error.message)
                await asyncio.sleep(_TOPICS_RETRY_S)
            else:
                self._state.topics_ready = True
                self._note_topics("")

    def _note_topics(self, detail: str) -> None:
        if detail and detail != self._state.topics_detail:
            _log.error("topics could not be made", error=detail)
        self._state.topics_detail = detail
        self._changed()

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(_HOUSEKEEPING_S)
            if not self._told:
                self._tell()
            for folder in {runner.part.log.parent for runner in self._runners.values()}:
                try:
                    await asyncio.to_thread(bound_logs, folder)
                except OSError as error:
                    _log.warning("a log could not be cut", error=str(error))


def raise_open_files() -> None:
    """Every part inherits it: a shell's usual 1024 is little for Kafka, RocksDB and nginx."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
