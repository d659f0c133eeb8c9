"""What the running stack weighs: memory of each part with all its processes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Memory:
    """Bytes. `pss` shares out what processes have in common, so it adds up; None where it can't be read."""

    rss: int
    pss: int | None

    @property
    def fair(self) -> int:
        return self.rss if self.pss is None else self.pss

    def __add__(self, other: Memory) -> Memory:
        pss = None if self.pss is None or other.pss is None else self.pss + other.pss
        return Memory(self.rss + other.rss, pss)


def memory_of(pid: int, *, descendants: bool = True) -> Memory:
    """Of `pid` and, unless told otherwise, its descendants; nothing for a process that is gone."""
    total = Memory(0, 0)
    with suppress(psutil.NoSuchProcess):
        leader = psutil.Process(pid)
        for process in (leader, *(leader.children(recursive=True) if descendants else ())):
            with suppress(psutil.NoSuchProcess):
                total += _own_memory(process)
    return total


def _own_memory(process: psutil.Process) -> Memory:
    try:
        full = process.memory_full_info()
    except psutil.AccessDenied:  # another user's, or in a namespace of its own
        return Memory(process.memory_info().rss, None)
    return Memory(full.rss, getattr(full, "pss", None))
