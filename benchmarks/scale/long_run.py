"""Minutes of writing with everything that grows kept short: memory, files and look-ups must come to rest.

A stand-in for the tailer acknowledges twice a second what is durable, so that retention prunes the change log
under the load; the log's oldest changes are read each time, beside the tombstones of those that went.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc

from benchmarks.measure import generator
from benchmarks.measure.generator import Load
from benchmarks.scale.pairs import CONNECTIONS
from benchmarks.scale.shards import Shard
from tollgate.v1.shard_pb2 import AcknowledgeChangesRequest, ReadChangesRequest
from tollgate.v1.shard_pb2_grpc import ShardStub

if TYPE_CHECKING:
    from tollgate.v1.shard_pb2_grpc import ShardAsyncStub

# Instead of a day and a month: within a piece everything that was acknowledged before it goes.
RETENTION: Final = {"TOLLGATE_RETENTION__CHANGES_S": "10", "TOLLGATE_RETENTION__INTERVAL_S": "2"}
_ACKNOWLEDGE_EVERY_S: Final = 0.5
_READ_AT_ONCE: Final = 500
_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True)
class Piece:
    """What was seen at the end of one piece of the run. `read_ms`: the slowest look at the oldest changes."""

    resident_mib: float
    files_mib: float
    wal_mib: float
    kept_changes: int
    read_ms: float
    p99_ms: float
    failed: int


@dataclass(frozen=True)
class LongRun:
    rate: float
    piece_s: float
    pieces: list[Piece]

    def __str__(self) -> str:
        lines = [f"{self.rate:g}/s, pieces of {self.piece_s:g} s; the change log kept for 10 s"]
        lines += [
            f"  RSS {piece.resident_mib:6.1f} MiB  files {piece.files_mib:8.1f}  WAL {piece.wal_mib:5.1f}  "
            f"changes {piece.kept_changes:>9,}  read {piece.read_ms:6.1f} ms  p99 {piece.p99_ms:6.2f} ms  "
            f"failed {piece.failed}"
            for piece in self.pieces
        ]
        return "\n".join(lines)

    def document(self) -> dict[str, Any]:
        return {**asdict(self), "pieces": [asdict(piece) for piece in self.pieces]}


async def measure(
    loadgen: Path, shard: Shard, *, rate: float, piece_s: float, count: int, rng: random.Random
) -> LongRun:
    """`shard` runs, with RETENTION."""
    pieces = []
    load = Load("post", CONNECTIONS, piece_s, rate)
    async with grpc.aio.insecure_channel(shard.grpc) as channel:
        tailer = _Tailer(channel)
        shipping = asyncio.create_task(tailer.run())
        try:
            for _ in range(count):
                seed = rng.getrandbits(63)
                result = await asyncio.to_thread(generator.run, loadgen, load, shard.target, seed=seed)
                if shipping.done():
                    await shipping
                pieces.append(
                    Piece(
                        round(shard.resident_mib(), 1),
                        round(shard.files_mib(".sst"), 1),
                        round(shard.files_mib(".log"), 1),
                        tailer.kept,
                        round(tailer.take_slowest_ms(), 2),
                        round((result.latency.percentile_ns(99) or 0) / 1e6, 3),
                        result.failed,
                    )
                )
        finally:
            shipping.cancel()
            with suppress(asyncio.CancelledError):
                await shipping
    return LongRun(rate, piece_s, pieces)


class _Tailer:
    """Acknowledges and looks; ships nothing."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: ShardAsyncStub = ShardStub(channel)
        self._slowest_ms = 0.0
        self.kept = 0

    async def run(self) -> None:
        while True:
            seen = await self._stub.ReadChanges(
                ReadChangesRequest(from_sequence=1, limit=0), timeout=_TIMEOUT_S
            )
            await self._stub.AcknowledgeChanges(
                AcknowledgeChangesRequest(
                    incarnation=seen.incarnation, epoch=seen.epoch, sequence=seen.durable_sequence
                ),
                timeout=_TIMEOUT_S,
            )
            oldest = ReadChangesRequest(from_sequence=seen.pruned_sequence + 1, limit=_READ_AT_ONCE)
            began = time.perf_counter()
            await self._stub.ReadChanges(oldest, timeout=_TIMEOUT_S)
            self._slowest_ms = max(self._slowest_ms, (time.perf_counter() - began) * 1e3)
            self.kept = seen.durable_sequence - seen.pruned_sequence
            await asyncio.sleep(_ACKNOWLEDGE_EVERY_S)

    def take_slowest_ms(self) -> float:
        slowest, self._slowest_ms = self._slowest_ms, 0.0
        return slowest
