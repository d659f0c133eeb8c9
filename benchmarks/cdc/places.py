"""What is measured with: one store, one Kafka, a shard over the store, a tailer beside it. Describes and
starts; each folder and port is the benchmark's own.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without __all__
    AdminClient,
    NewTopic,
)

from benchmarks.scale.shards import Shard, new_shard
from benchmarks.systems.catalogue import Setup
from tollgate.errors import OperationalError
from tollgate.local import process
from tollgate.local.kafka import kafka_part
from tollgate.local.part import Part
from tollgate.local.ports import address, check_free
from tollgate.local.probes import http_probe
from tollgate.local.topics import ensure_topics
from tollgate.topics import CHANGES, topic_specs

READY_TIMEOUT_S: Final = 60.0
_TOPIC_S: Final = 20.0
_ADMIN_S: Final = 10.0
_LOOK_S: Final = 0.05
_FILES_GONE_MS: Final = 1_000
_NEVER: Final = str(2**63 - 1)
_PORTS: Final = {"shard": 0, "shard's gRPC": 1, "kafka": 2, "controller": 3, "tailer": 4, "stand-in": 5}

# How the topic is made: as the one node of the local stack has it, and as a cluster has it.
FLUSHED: Final = "flush.messages=1"
NOT_FLUSHED: Final = "no flush.messages"
TOPICS: Final = (FLUSHED, NOT_FLUSHED)


@dataclass(frozen=True)
class Places:
    setup: Setup
    data_dir: Path  # the filled shard's

    def port(self, name: str) -> int:
        return self.setup.port_base + _PORTS[name]

    def check(self) -> None:
        check_free({name: self.port(name) for name in _PORTS})

    @property
    def bootstrap(self) -> str:
        return address(self.port("kafka"))

    @property
    def stand_in(self) -> str:
        return address(self.port("stand-in"))

    def shard(self) -> Shard:
        return new_shard(self.setup, "shard", self.data_dir, self.port("shard"))

    def kafka(self) -> Part:
        folder = self.setup.folder
        port, controller = self.port("kafka"), self.port("controller")
        return kafka_part(folder / "kafka", folder / "kafka.log", port=port, controller_port=controller)

    def tailer(self, service: str, settings: Mapping[str, str], nice: int = 0) -> Part:
        """`service` is who hears its acknowledgements."""
        ops = address(self.port("tailer"))
        return Part(
            name="tailer",
            argv=("nice", "-n", str(nice), sys.executable, "-P", "-m", "cdc"),
            cwd=self.setup.folder,
            log=self.setup.folder / "tailer.log",
            is_ready=http_probe(ops),
            env={
                "TOLLGATE_SHARD__ID": "0",
                "TOLLGATE_SHARD__DATA_DIR": str(self.data_dir),
                "TOLLGATE_SHARD__GRPC": service,
                "TOLLGATE_KAFKA_BOOTSTRAP": self.bootstrap,
                "TOLLGATE_CDC__OPS": ops,
                **settings,
            },
        )

    def tailers_metric(self, name: str) -> float:
        url = f"http://{address(self.port('tailer'))}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:  # loopback
            lines = answer.read().decode().splitlines()
        return sum(float(line.split(" ")[1]) for line in lines if line.startswith(f"{name} "))

    async def shipped(self, timeout_s: float) -> None:
        """Until nothing is left that the tailer knows of; before it knows of any, its lag is no number.
        Raises OperationalError."""
        deadline = time.monotonic() + timeout_s
        while self.tailers_metric("tollgate_cdc_lag_records"):
            if time.monotonic() > deadline:
                raise OperationalError(f"The tailer was not done within {timeout_s:g} s. Its log says why.")
            await asyncio.sleep(_LOOK_S)
        await asyncio.sleep(0.5)  # its metrics are as old as a quarter of a second


@asynccontextmanager
async def running(part: Part) -> AsyncIterator[subprocess.Popen[bytes]]:
    """Ready, until the context ends. Raises OperationalError when it does not come to that."""
    started = process.start(part)
    try:
        await process.wait_ready(part, started, READY_TIMEOUT_S)
        yield started
    finally:
        await process.stop(part, started)


def fresh_topic(bootstrap: str, topic: str) -> None:
    """payments.changes with nothing in it, made as `topic` says. Raises OperationalError."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
    ensure_topics(bootstrap, embedded=True)
    for future in admin.delete_topics([CHANGES]).values():
        future.result(_ADMIN_S)
    _wait_for_partitions(admin, 0)
    spec = next(spec for spec in topic_specs(embedded=True) if spec.name == CHANGES)
    flush = spec.config["flush.messages"] if topic == FLUSHED else _NEVER
    config = {**spec.config, "flush.messages": flush, "file.delete.delay.ms": str(_FILES_GONE_MS)}
    for future in admin.create_topics([NewTopic(CHANGES, spec.partitions, 1, config=config)]).values():
        future.result(_ADMIN_S)
    _wait_for_partitions(admin, spec.partitions)


def _wait_for_partitions(admin: AdminClient, count: int) -> None:
    deadline = time.monotonic() + _TOPIC_S
    while True:
        found = admin.list_topics(timeout=_ADMIN_S).topics.get(CHANGES)
        if len(found.partitions if found is not None else {}) == count:
            return
        if time.monotonic() > deadline:
            raise OperationalError(f"{CHANGES} does not come to {count} partitions. Kafka's log says why.")
        time.sleep(_LOOK_S)
