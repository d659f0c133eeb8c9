"""The one thread that waits for the disk, so that the event loop never does.

It touches Python once a flush: `Store.flush` releases the GIL while the disk works.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol

from gateway.errors import StoreFailed
from gateway.store.interface import Store

OnFlushed = Callable[[StoreFailed | None], None]


class Flusher(Protocol):
    def flush(self, done: OnFlushed) -> None:
        """Starts a flush; calls `done` on the loop when it has ended, with what went wrong."""
        ...


class ThreadFlusher:
    """Flushes `store` on its own thread. A daemon: a disk that never answers can't keep the process."""

    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._loop = loop
        self._requests: SimpleQueue[OnFlushed | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="flusher", daemon=True)
        self._thread.start()

    def flush(self, done: OnFlushed) -> None:
        self._requests.put(done)

    def close(self, timeout_s: float) -> bool:
        """Ends the thread; False when it is still waiting for the disk after `timeout_s`."""
        self._requests.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (done := self._requests.get()) is not None:
            failure = None
            try:
                self._store.flush()
            except StoreFailed as error:
                failure = error
            self._loop.call_soon_threadsafe(done, failure)
