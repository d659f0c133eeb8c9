"""The supervisor: runs every part of one stack, restarts what dies and keeps the files about it true.

One process, one event loop. All parts start at once (each tolerates that the others aren't there yet); the
topics are made when Kafka answers. Stopping goes in stages, each bounded. If the supervisor itself is killed,
its guardian ends everything; what survives is what the parts keep on disk.
"""

from __future__ import annotations

import asyncio
import os
import resource
import secrets
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from tollgate.errors import TollgateError
from tollgate.local.guarded import Guardian
from tollgate.local.guardian import RUN_VARIABLE
from tollgate.local.logs import bound_logs
from tollgate.local.part import Part
from tollgate.local.run_state import RunState, write_run_state
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
        self._runners = [PartRunner(part, self._guardian, self._changed) for part in parts]
        self._stop_order = stop_order
        self._run_state = run_state
        self._publish = publish
        self._topics = make_topics
        self._told = True
        self._state = RunState(
            run_id=run_id,
            supervisor_pid=os.getpid(),
            started_at=time.time(),
            parts=[runner.state for runner in self._runners],
        )
        self._stop_requested = asyncio.Event()

    async def run(self) -> None:
        """Returns after SIGTERM or SIGINT, when every part has ended."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._child_ended)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_requested.set)
        self._changed()
        lives = {runner: asyncio.create_task(runner.run()) for runner in self._runners}
        chores = [asyncio.create_task(self._make_topics()), asyncio.create_task(self._keep_house())]
        try:
            await self._until_told_to_stop([*lives.values(), *chores])
        finally:
            for chore in chores:
                chore.cancel()
            for stage in self._stages():
                for runner in stage:
                    runner.stop()
                await asyncio.gather(*(lives[runner] for runner in stage), return_exceptions=True)
            self._publish({})
            self._guardian.close()

    async def _until_told_to_stop(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        """Raises what one of the tasks raised: then the fault is here, and everything is stopped."""
        stop = asyncio.create_task(self._stop_requested.wait())
        waiting: set[asyncio.Task[object]] = {stop, *tasks}
        while not stop.done():
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()

    def _stages(self) -> Iterator[list[PartRunner]]:
        for prefixes in self._stop_order:
            yield [runner for runner in self._runners if runner.part.name.startswith(prefixes)]

    def _child_ended(self) -> None:
        self._guardian.ensure_alive()
        for runner in self._runners:
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
            for folder in {runner.part.log.parent for runner in self._runners}:
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
