"""Statuses on their way back: snapshots that wait in payments.status, applied to a live shard by the feed.

They are of payments that the shard holds, one version each. The tailer's process is the one that feeds; what
it does otherwise at that time is nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from confluent_kafka import Producer

from benchmarks.cdc.places import Places
from benchmarks.measure.machine import cpu_seconds
from benchmarks.scale.shards import Shard
from cdc.shard_log import ShardLog
from tollgate.errors import OperationalError
from tollgate.topics import STATUS
from tollgate.v1.change_pb2 import Change
from tollgate.v1.payment_pb2 import Status
from tollgate.v1.shard_pb2 import StatusUpdate

_LOOK_S: Final = 0.01
_LEAST_PER_S: Final = 1_000  # slower is no measurement


@dataclass(frozen=True)
class Measured:
    snapshots: int
    seconds: float
    feed_cpu_s: float
    shard_cpu_s: float

    @property
    def per_second(self) -> float:
        return self.snapshots / self.seconds

    def __str__(self) -> str:
        feed, shard = (cpu / self.snapshots * 1e6 for cpu in (self.feed_cpu_s, self.shard_cpu_s))
        return (
            f"Status feed: {self.per_second / 1e3:.1f} thousand snapshots a second into a live shard; CPU a "
            f"snapshot: {feed:.1f} us in cdc, {shard:.1f} us in the shard"
        )

    def document(self) -> dict[str, Any]:
        return {**asdict(self), "per_second": round(self.per_second)}


async def measure(places: Places, tailer_pid: int, shard: Shard, snapshots: int) -> Measured:
    """The feed runs and is idle. Raises OperationalError when it is not done in time."""
    applied = await asyncio.to_thread(places.tailers_metric, "tollgate_cdc_status_applied_total")
    first: tuple[float, float, float, float] | None = None
    producing = asyncio.create_task(asyncio.to_thread(_produce, places, snapshots))
    deadline = time.monotonic() + 30.0 + snapshots / _LEAST_PER_S
    while True:
        done = places.tailers_metric("tollgate_cdc_status_applied_total") - applied
        now = (time.monotonic(), done, cpu_seconds([tailer_pid]), shard.cpu_s())
        if first is None and done and producing.done():
            first = now  # from here on the feed alone works
        if done >= snapshots:
            break
        if time.monotonic() > deadline:
            raise OperationalError(f"Only {done:.0f} of {snapshots} snapshots were applied in time.")
        await asyncio.sleep(_LOOK_S)
    await producing
    if first is None or first[1] == done:
        raise OperationalError("The snapshots were applied as fast as they were made: nothing was measured.")
    since, counted, feed_cpu, shard_cpu = (late - early for late, early in zip(now, first, strict=True))
    return Measured(round(counted), since, feed_cpu, shard_cpu)


def _produce(places: Places, snapshots: int) -> None:
    producer = Producer(
        {
            "bootstrap.servers": places.bootstrap,
            "linger.ms": 5,
            "queue.buffering.max.messages": snapshots,
            "log_level": 2,
        }
    )
    for key, value in _snapshots(places, snapshots):
        producer.produce(STATUS, key=key, value=value, partition=0)
    if left := producer.flush(30):
        raise OperationalError(f"{left} snapshots could not be produced. Kafka's log says why.")


def _snapshots(places: Places, count: int) -> Iterator[tuple[bytes, bytes]]:
    log = ShardLog(places.data_dir)
    try:
        for _sequence, value in log.rows(0, count):
            change = Change.FromString(value)
            payment = change.acceptance
            payment.version, payment.status = 1, Status.STATUS_PROCESSING
            update = StatusUpdate(payment=payment, published_at_us=change.committed_at_us)
            yield change.key.encode(), update.SerializeToString()
    finally:
        log.close()
