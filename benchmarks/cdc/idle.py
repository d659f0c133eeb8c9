"""What a tailer takes that has nothing to ship: CPU time and wake-ups, from /proc."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from benchmarks.measure.machine import cpu_seconds


@dataclass(frozen=True)
class Measured:
    seconds: float
    cpu: float  # of one core
    wake_ups_per_s: float  # of all its threads, librdkafka's and gRPC's included

    def __str__(self) -> str:
        return (
            f"Idle for {self.seconds:g} s the cdc process takes {self.cpu * 100:.2f} % of a core and wakes "
            f"{self.wake_ups_per_s:.0f} times a second."
        )

    def document(self) -> dict[str, Any]:
        return asdict(self)


async def measure(pid: int, seconds: float) -> Measured:
    cpu_s, switches = cpu_seconds([pid]), _switches(pid)
    await asyncio.sleep(seconds)
    return Measured(seconds, (cpu_seconds([pid]) - cpu_s) / seconds, (_switches(pid) - switches) / seconds)


def _switches(pid: int) -> int:
    """Times that a thread of it gave up a core by itself, which each is a wake-up later."""
    found = 0
    for thread in psutil.Process(pid).threads():
        with open(f"/proc/{pid}/task/{thread.id}/status") as status:
            lines = status.read().splitlines()
        found += sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))
    return found
