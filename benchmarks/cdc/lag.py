"""How long after its commit a change is in the hands of who reads the topic: percentiles under an open loop.

The reader is this process, on the same machine and the same clock; what it takes to read is part of it.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from benchmarks.cdc.beside import CONNECTIONS
from benchmarks.cdc.places import Places
from benchmarks.measure import generator, machine
from benchmarks.measure.generator import Load, Result
from benchmarks.scale.shards import Shard
from tollgate.errors import OperationalError
from tollgate.topics import CHANGES
from tollgate.v1.change_pb2 import Change

PERCENTS: Final = (50.0, 90.0, 99.0, 99.9)
_QUIET_S: Final = 3.0
_POLL_S: Final = 0.1
_AT_ONCE: Final = 500
_ADMIN_S: Final = 10.0
_LAST_S: Final = 10.0


@dataclass(frozen=True)
class Measured:
    load: Load
    posted: Result
    lags_ms: list[float]  # ascending
    tailer_cpu: float

    def percentile_ms(self, percent: float) -> float:
        return self.lags_ms[min(len(self.lags_ms) - 1, int(len(self.lags_ms) * percent / 100))]

    def __str__(self) -> str:
        shown = "  ".join(f"p{percent:g} {self.percentile_ms(percent):.1f}" for percent in PERCENTS)
        return (
            f"Lag at {self.load.rate:g}/s, from the commit to a reader of the topic, ms of "
            f"{len(self.lags_ms)} changes: {shown}  max {self.lags_ms[-1]:.1f}. "
            f"The tailer takes {self.tailer_cpu * 100:.1f} % of a core; {self.posted.failed} requests failed."
        )

    def document(self) -> dict[str, Any]:
        return {
            "load": self.load.name,
            "seconds": self.load.seconds,
            "changes": len(self.lags_ms),
            "lag_ms": {f"p{percent:g}": round(self.percentile_ms(percent), 2) for percent in PERCENTS}
            | {"max": round(self.lags_ms[-1], 2)},
            "tailer_cpu": round(self.tailer_cpu, 4),
            "posts": self.posted.document(),
        }


class _Reader:
    """Reads what comes to the topic from now on, on a thread."""

    def __init__(self, bootstrap: str) -> None:
        self.lags_ms: list[float] = []
        self._over = threading.Event()
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "lag",
                "enable.auto.commit": False,
                "fetch.queue.backoff.ms": 1,
                "fetch.wait.max.ms": 20,  # the first fetch may be without the partitions that get something
                "log_level": 2,
            }
        )
        found = self._consumer.list_topics(CHANGES, timeout=_ADMIN_S).topics[CHANGES].partitions
        places = [TopicPartition(CHANGES, partition) for partition in found]
        for place in places:
            place.offset = self._consumer.get_watermark_offsets(place, timeout=_ADMIN_S)[1]
        self._consumer.assign(places)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()
        self._consumer.close()

    def _read(self) -> None:
        while not self._over.is_set():
            first = self._consumer.poll(_POLL_S)
            if first is None:
                continue
            messages = [first, *self._consumer.consume(_AT_ONCE, timeout=0)]
            now_us = time.time_ns() // 1000
            for message in messages:
                if message.error() is not None:
                    raise KafkaException(message.error())
                committed_at_us = Change.FromString(message.value() or b"").committed_at_us
                self.lags_ms.append((now_us - committed_at_us) / 1e3)


async def measure(
    places: Places,
    shard: Shard,
    tailer_pid: int,
    loadgen: Path,
    *,
    rate: float,
    seconds: float,
    rng: random.Random,
) -> Measured:
    """The tailer is on and has shipped everything. Raises OperationalError when a change does not come."""
    load = Load("post", CONNECTIONS, seconds, rate)
    machine.await_quiet(_QUIET_S)
    reader = _Reader(places.bootstrap)
    try:
        cpu_s = machine.cpu_seconds([tailer_pid])
        posted = await asyncio.to_thread(generator.run, loadgen, load, shard.target, seed=rng.getrandbits(63))
        cpu = (machine.cpu_seconds([tailer_pid]) - cpu_s) / (seconds + load.warm_up_s)
        deadline = time.monotonic() + _LAST_S
        while len(reader.lags_ms) < posted.post.count:
            if time.monotonic() > deadline:
                raise OperationalError(
                    f"Of {posted.post.count} accepted payments only {len(reader.lags_ms)} changes came."
                )
            await asyncio.sleep(_POLL_S)
    finally:
        reader.end()
    return Measured(load, posted, sorted(reader.lags_ms), cpu)
