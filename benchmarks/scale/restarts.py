"""How long a shard takes until it serves again: stopped, killed, and killed with its write-ahead log full."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import generator
from benchmarks.measure.generator import Load
from benchmarks.measure.ratios import spread, written
from benchmarks.scale.shards import Shard


@dataclass(frozen=True)
class Restart:
    """`wal_mib` is what RocksDB had to read again."""

    ended_by: str
    ready_ms: float
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
            lines.append(f"  {ended_by:34} ready after {ready:>20} ms   WAL {wal} MiB")
        return f"Restarts with {self.each[-1].unshipped:,.0f} unshipped changes\n" + "\n".join(lines)

    def document(self) -> list[dict[str, Any]]:
        return [asdict(restart) for restart in self.each]


async def measure(loadgen: Path, shard: Shard, *, rounds: int, rng: random.Random) -> Restarts:
    """`shard` runs before and after. Each load before a kill is of another length, and so is the WAL."""
    restarts = []
    for number in range(rounds):
        await shard.stop()
        restarts.append(await _start(shard, "SIGTERM"))
        _load(loadgen, shard, 1.0 + number, rng)
        shard.kill()
        restarts.append(await _start(shard, "SIGKILL, under load until then"))
    return Restarts(restarts)


def _load(loadgen: Path, shard: Shard, seconds: float, rng: random.Random) -> None:
    load = Load("post", connections=64, seconds=seconds, warm_up_s=0.0)
    generator.run(loadgen, load, shard.target, seed=rng.getrandbits(63))


async def _start(shard: Shard, ended_by: str) -> Restart:
    wal_mib = round(shard.files_mib(".log"), 1)
    ready_ms = round(await shard.start(), 1)
    return Restart(ended_by, ready_ms, wal_mib, shard.metrics()["tollgate_unacknowledged_changes"])
