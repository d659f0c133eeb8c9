"""A wake-up when a file is written: inotify, heard by the event loop itself; an idle wait costs nothing.

Only a hint: who waits looks at the file and believes what it reads there. Where there is no inotify (it is
Linux's), or a watch can't be had, the file is looked at every 20 ms instead, which costs 1 % of a core.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

_IN_MODIFY: Final = 0x2
_EVENTS_BYTES: Final = 16 * 1024
_LOOK_EVERY_S: Final = 0.02


class Bell(Protocol):
    """Rings when the watched file is written. One who waits at a time."""

    def watch(self, path: Path) -> None:
        """From now on `path`, the file that is there now: call it again when another has taken its place."""
        ...

    def clear(self) -> None:
        """Forgets what rang. Look at the file after this, then `wait`: a write in between still rings."""
        ...

    async def wait(self, timeout_s: float) -> None:
        """Until it has rung, or the time is over. May return before either."""
        ...

    def close(self) -> None: ...


class FileBell:
    """Belongs to the running event loop."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._fd = _inotify_open()
        self._hears = False

    def watch(self, path: Path) -> None:
        self._hears = self._fd is not None and _inotify_watch(self._fd, path)

    def clear(self) -> None:
        self._rung.clear()
        if self._fd is not None:
            with suppress(BlockingIOError):  # nothing has rung
                os.read(self._fd, _EVENTS_BYTES)

    async def wait(self, timeout_s: float) -> None:
        """Only meanwhile does the loop listen: a shard writes with each commit, and while nobody waits the
        kernel keeps all its writes as one event."""
        if self._fd is not None:
            self._loop.add_reader(self._fd, self._rung.set)
        try:
            async with asyncio.timeout(timeout_s if self._hears else min(timeout_s, _LOOK_EVERY_S)):
                await self._rung.wait()
        except TimeoutError:
            pass
        finally:
            if self._fd is not None:
                self._loop.remove_reader(self._fd)

    def close(self) -> None:
        if self._fd is not None:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None


def _inotify_open() -> int | None:
    """None where the system has none, or all that a user may have are taken."""
    try:
        fd: int = ctypes.CDLL(None).inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    except AttributeError:
        return None
    return fd if fd >= 0 else None


def _inotify_watch(fd: int, path: Path) -> bool:
    added: int = ctypes.CDLL(None).inotify_add_watch(fd, os.fsencode(path), _IN_MODIFY)
    return added >= 0
