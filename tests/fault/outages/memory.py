"""What each part of the stack holds in memory, once a second: its processes' own share (PSS), in MiB."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median
from typing import Final

import psutil

from tests.fixtures.stack import RunningStack

_EVERY_S: Final = 1.0
_MIB: Final = 1024 * 1024


@dataclass
class Memory:
    """By part; times are monotonic."""

    stack: RunningStack
    samples: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    async def watch(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.to_thread(self.sample)
            await asyncio.sleep(_EVERY_S)

    def between(self, begin: float, end: float) -> dict[str, float]:
        """The median of each part that was there."""
        found = {
            part: [held for at, held in samples if begin <= at <= end]
            for part, samples in self.samples.items()
        }
        return {part: median(held) for part, held in found.items() if held}

    def peak(self, begin: float, end: float) -> dict[str, float]:
        found = {
            part: [held for at, held in samples if begin <= at <= end]
            for part, samples in self.samples.items()
        }
        return {part: max(held) for part, held in found.items() if held}

    def sample(self) -> None:
        now = time.monotonic()
        for part, pid in self.stack.pids.items():
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):  # it is what is away
                self.samples.setdefault(part, []).append((now, _held_mib(pid)))


def _held_mib(pid: int) -> float:
    leader = psutil.Process(pid)
    held = float(leader.memory_full_info().pss)
    for child in leader.children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            held += child.memory_full_info().pss
    return held / _MIB
