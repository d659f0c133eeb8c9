"""The supervisor: runs every part of one stack, restarts what dies, keeps stack.json and supervisor.json
true.

One process, one event loop. Order: all parts start at once (each tolerates that the others aren't there yet),
the topics are made when Kafka answers. Stopping goes in stages, each bounded. If the supervisor itself is
killed, its guardian ends everything; what survives is what the parts keep on disk.
"""

from __future__ import annotations

import asyncio
import os
import resource
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Final

import structlog

from tollgate.errors import TollgateError
from tollgate.local.guarded import Guardian
from tollgate.local.guardian import RUN_VARIABLE
from tollgate.local.logs import bound_logs
from tollgate.local.run_state import RunState, write_run_state
from tollgate.local.runner import PartRunner
from tollgate.local.stack import STOP_ORDER, StackSettings, build_parts, describe, stop_timeout_s
from tollgate.local.stack_json import api_key_of, write_stack_json
from tollgate.ring_file import read_ring_file

_HOUSEKEEPING_S: Final = 1.0
_TOPICS_RETRY_S: Final = 0.5
_OPEN_FILES: Final = 65536

_log = structlog.get_logger()


class Supervisor:
    def __init__(self, settings: StackSettings) -> None:
        self._settings = settings
        self._ring = read_ring_file(settings.paths.ring)
        self._api_key = api_key_of(settings.paths.stack_json)
        run_id = secrets.token_hex(16)
        os.environ[RUN_VARIABLE] = run_id  # inherited by everything that is started, however deep
        self._guardian = Guardian(run_id)
        self._runners = [
            PartRunner(replace(part, stop_timeout_s=stop_timeout_s(part)), self._guardian, self._publish)
            for part in build_parts(settings, self._ring, self._api_key)
        ]
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
        self._publish()
        lives = {runner.part.name: asyncio.create_task(runner.run()) for runner in self._runners}
        chores = [asyncio.create_task(self._make_topics()), asyncio.create_task(self._keep_house())]
        try:
            await self._stop_requested.wait()
        finally:
            for chore in chores:
                chore.cancel()
            for stage in self._stages():
                for runner in stage:
                    runner.stop()
                await asyncio.gather(*(lives[runner.part.name] for runner in stage))
            write_stack_json(
                self._settings.paths.stack_json,
                describe(self._settings, self._ring, self._api_key, {}),
            )
            self._guardian.close()

    def _stages(self) -> Iterator[list[PartRunner]]:
        for prefixes in STOP_ORDER:
            yield [runner for runner in self._runners if runner.part.name.startswith(prefixes)]

    def _child_ended(self) -> None:
        self._guardian.ensure_alive()
        for runner in self._runners:
            runner.child_ended()

    def _publish(self) -> None:
        """stack.json appears once each part has a process: a pid in it is never null."""
        write_run_state(self._settings.paths.run_state, self._state)
        pids = {part.name: part.pid for part in self._state.parts if part.pid is not None}
        if len(pids) == len(self._state.parts) and not self._stop_requested.is_set():
            write_stack_json(
                self._settings.paths.stack_json,
                describe(self._settings, self._ring, self._api_key, pids),
            )

    async def _make_topics(self) -> None:
        from tollgate.local.topics import ensure_topics  # loads the Kafka client, which takes a while

        embedded = self._settings.kafka_bootstrap is None
        while not self._state.topics_ready:
            try:
                await asyncio.to_thread(ensure_topics, self._settings.bootstrap, embedded=embedded)
            except TollgateError as error:
                if self._state.topics_detail != error.message:
                    _log.error("topics could not be made", error=error.message)
                    self._state.topics_detail = error.message
                    self._publish()
                await asyncio.sleep(_TOPICS_RETRY_S)
            else:
                self._state.topics_ready = True
                self._state.topics_detail = ""
                self._publish()

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(_HOUSEKEEPING_S)
            try:
                await asyncio.to_thread(bound_logs, self._settings.paths.logs)
            except OSError as error:
                _log.warning("a log could not be cut", error=str(error))


def raise_open_files() -> None:
    """Every part inherits it: a shell's usual 1024 is little for Kafka, RocksDB and nginx."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
