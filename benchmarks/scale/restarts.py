"""How long a shard takes until it serves again: stopped, killed, and killed with its write-ahead log full."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.measure import generator
from benchmarks.measure.generator import Load
from benchmarks.measure.ratios import spread, written
from benchmarks.scale.shards import Shard
from tollgate.errors import OperationalError

# Payments alone reach about 65 MiB before both families have flushed; with statuses it is up to its bound.
WAL_FULL_MIB: Final = 55.0
_LOADS_MAX: Final = 200


@dataclass(frozen=True)
class Restart:
    """`wal_mib` is what RocksDB had to read again."""

    ended_by: str
    ready_ms: float
    cpu_ms: float  # until then, of all its threads: what a busy machine does not change
    wal_mib: float
    unshipped: float


@dataclass(frozen=True)
class Restarts:
    each: list[Restart]

    @property
    def slowest_ms(self) -> float:
        return max(restart.ready_ms for restart in self.each)

    def __str__(self) -> str:
        lines = []
        for ended_by in dict.fromkeys(restart.ended_by for restart in self.each):
            same = [restart for restart in self.each if restart.ended_by == ended_by]
            ready = written(spread([restart.ready_ms for restart in same]), lambda value: f"{value:.0f}")
            wal = written(spread([restart.wal_mib for restart in same]), lambda value: f"{value:.0f}")
            cpu = written(spread([restart.cpu_ms for restart in same]), lambda value: f"{value:.0f}")
            lines.append(f"  {ended_by:30} ready after {ready:>18} ms   CPU {cpu:>18} ms   WAL {wal} MiB")
        return f"Restarts with {self.each[-1].unshipped:,.0f} unshipped changes\n" + "\n".join(lines)

    def document(self) -> list[dict[str, Any]]:
        return [asdict(restart) for restart in self.each]


async def measure(loadgen: Path, shard: Shard, *, rounds: int, rng: random.Random) -> Restarts:
    """`shard` runs before and after."""
    restarts = []
    for _ in range(rounds):
        await shard.stop()
        restarts.append(await _start(shard, "SIGTERM"))
        _fill_wal(loadgen, shard, rng)
        shard.kill()
        restarts.append(await _start(shard, "SIGKILL, write-ahead log full"))
    return Restarts(restarts)


def _fill_wal(loadgen: Path, shard: Shard, rng: random.Random) -> None:
    """It shrinks at each flush, so it is caught on its way up."""
    load = Load("post", connections=64, seconds=0.5, warm_up_s=0.0)
    for _ in range(_LOADS_MAX):
        generator.run(loadgen, load, shard.target, seed=rng.getrandbits(63))
        if shard.files_mib(".log") >= WAL_FULL_MIB:
            return
    raise OperationalError(f"The WAL of {shard.name} never reached {WAL_FULL_MIB:g} MiB.")


async def _start(shard: Shard, ended_by: str) -> Restart:
    wal_mib = round(shard.files_mib(".log"), 1)
    ready_ms = round(await shard.start(), 1)
    cpu_ms = round(shard.cpu_s() * 1e3)
    return Restart(ended_by, ready_ms, cpu_ms, wal_mib, shard.metrics()["tollgate_unacknowledged_changes"])
