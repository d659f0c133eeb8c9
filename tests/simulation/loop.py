"""An event loop without a machine: virtual time, processes that can be killed or stand still, one seed.

Every callback belongs to a process, the one in whose context it was scheduled. Within a process callbacks run
first in, first out, as asyncio promises; among processes that have something to do the seed chooses, one
callback at a time. Time passes only when nobody has anything to do, and a microsecond a callback.

A killed process runs nothing more, no `finally` either, as after kill -9. Its tasks are kept until `close`,
so that no garbage collection runs anything of them in between. Threads are callbacks here: an executor runs
its function a moment later, in its caller's process.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any, Final, TypeVar, cast

EPOCH_US: Final = 1_700_000_000_000_000
_THREAD_US_MAX: Final = 400
_END_OF_SLEEP: Final = asyncio.futures._set_result_unless_cancelled  # type: ignore[attr-defined]

T = TypeVar("T")


class Process:
    """What dies at once and stands still at once. `skew_us` is how far its wall clock is off."""

    def __init__(self, loop: VirtualLoop, name: str, skew_us: int = 0) -> None:
        self.loop = loop
        self.name = name
        self.skew_us = skew_us
        self.alive = True
        self.paused = False
        self.ready: deque[asyncio.Handle] = deque()
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.context = copy_context()
        self.context.run(_CURRENT.set, self)

    def spawn(self, coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        return self.loop.create_task(coro, context=self.context.copy())

    def run(self, function: Callable[..., T], *args: Any) -> T:
        """At once, as if this process had called it."""
        return self.context.copy().run(function, *args)

    # tollgate.clock.Clock

    def now_us(self) -> int:
        return EPOCH_US + self.loop.now_us + self.skew_us

    def monotonic(self) -> float:
        return self.loop.now_us / 1e6


_CURRENT: ContextVar[Process] = ContextVar("process")


def current() -> Process:
    return _CURRENT.get()


class VirtualLoop:
    """As far as asyncio and what runs on it use a loop."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._me = cast(asyncio.AbstractEventLoop, self)
        self.now_us = 0
        self.callbacks = 0
        self.defects: list[str] = []  # callbacks that raised
        self._timers: list[tuple[int, int, Process, asyncio.Handle]] = []
        self._timer_count = 0
        self._runnable: list[Process] = []
        self._graveyard: list[asyncio.Task[Any]] = []
        self._living: dict[Process, None] = {}
        self._closed = False

    def process(self, name: str, skew_us: int = 0) -> Process:
        process = Process(self, name, skew_us)
        self._living[process] = None
        return process

    # What asyncio asks of a loop

    def time(self) -> float:
        return self.now_us / 1e6

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return self._closed

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self._me)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        owner = current() if context is None else context[_CURRENT]
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self._me, name=name, context=context)
        owner.tasks[task] = None
        task.add_done_callback(owner.tasks.pop, context=owner.context)
        return task

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self._me, context)
        if not self._closed:
            self._put(_CURRENT.get() if context is None else context[_CURRENT], handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now_us / 1e6 + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self._me, context)
        if not self._closed:
            owner = _CURRENT.get() if context is None else context[_CURRENT]
            self._timer_count += 1
            # Never before its time: who looks at the clock then would set the same timer again.
            at_us = max(self.now_us, -int(-when * 1e6 // 1))
            heapq.heappush(self._timers, (at_us, self._timer_count, owner, handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is passed over when its time comes."""

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:
        done = self.create_future()

        def work() -> None:
            try:
                result = func(*args)
            except Exception as error:
                if not done.cancelled():
                    done.set_exception(error)
            else:
                if not done.cancelled():
                    done.set_result(result)

        self.call_later(self._random.random() * _THREAD_US_MAX / 1e6, work)
        return done

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.defects.append(f"{context.get('message')}: {error!r}")

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)

    # What the simulation does with it

    def post(
        self, process: Process, delay_us: int, callback: Callable[..., object], *args: Any
    ) -> asyncio.Handle:
        """`callback` in another process, if it still lives then."""
        self._timer_count += 1
        handle = asyncio.Handle(callback, args, self._me, process.context)
        heapq.heappush(self._timers, (self.now_us + delay_us, self._timer_count, process, handle))
        return handle

    def run_for(self, duration_us: int) -> None:
        self.run_until(self.now_us + duration_us)

    def run_until(self, deadline_us: int) -> None:
        asyncio._set_running_loop(self._me)
        try:
            timers, runnable = self._timers, self._runnable
            while self.now_us < deadline_us:
                if timers and timers[0][0] <= self.now_us:
                    _, _, process, handle = heapq.heappop(timers)
                    if handle._cancelled:
                        continue
                    if handle._callback is _END_OF_SLEEP and process.alive:  # type: ignore[attr-defined]
                        handle._run()  # it only wakes who sleeps: the one callback of a sleep is theirs
                    else:
                        self._put(process, handle)
                elif runnable:
                    self._run_one()
                elif timers and timers[0][0] <= deadline_us:
                    self.now_us = timers[0][0]
                else:
                    self.now_us = deadline_us
        finally:
            asyncio._set_running_loop(None)

    def kill(self, process: Process) -> None:
        process.alive = False
        process.ready.clear()
        self._living.pop(process, None)
        self._graveyard.extend(process.tasks)
        process.tasks.clear()
        self._stop_running(process)

    def pause(self, process: Process) -> None:
        process.paused = True
        self._stop_running(process)

    def resume(self, process: Process) -> None:
        process.paused = False
        if process.alive and process.ready and process not in self._runnable:
            self._runnable.append(process)

    def close(self) -> None:
        """Everything ends where it is; nothing that ends reaches anything outside."""
        self._closed = True
        for process in list(self._living):
            self.kill(process)
        for task in self._graveyard:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            coro = task.get_coro()
            if coro is not None:
                with suppress(BaseException):  # an `await` in a `finally`, mostly
                    coro.close()
        self._graveyard.clear()
        self._timers.clear()

    def _stop_running(self, process: Process) -> None:
        if process in self._runnable:
            self._runnable.remove(process)

    def _put(self, process: Process, handle: asyncio.Handle) -> None:
        if not process.alive:
            return
        if not process.ready and not process.paused:
            self._runnable.append(process)
        process.ready.append(handle)

    def _run_one(self) -> None:
        runnable = self._runnable
        count = len(runnable)
        index = int(self._random.random() * count) if count > 1 else 0
        process = runnable[index]
        handle = process.ready.popleft()
        if not process.ready:
            runnable[index] = runnable[-1]
            runnable.pop()
        self.now_us += 1
        self.callbacks += 1
        if not handle._cancelled:
            handle._run()
