"""One cdc process beside a tiny shard, and what Kafka holds of that shard's changes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.error import HTTPError, URLError

from confluent_kafka import Consumer, Message, TopicPartition

from tests.fixtures.free_port import free_port
from tests.fixtures.waiting import wait_until
from tests.integration.cdc.tiny_shard import TinyShard
from tollgate.topics import CHANGES

_ROOT = Path(__file__).parents[3]


class Shipped(NamedTuple):
    """A record of payments.changes."""

    partition: int
    key: str
    sequence: int
    epoch: int
    value: bytes
    headers: dict[str, bytes]


def shipped(bootstrap: str, incarnation: bytes | None, topic: str = CHANGES) -> list[Shipped]:
    """Everything of one store (None: of any) that Kafka has now, in order within each partition."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "reader", "enable.auto.commit": False, "log_level": 2}
    )
    found = []
    try:
        ends = {
            partition: consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)[1]
            for partition in consumer.list_topics(topic, timeout=10).topics[topic].partitions
        }
        unread = {partition for partition, end in ends.items() if end > 0}
        consumer.assign([TopicPartition(topic, partition, 0) for partition in unread])
        while unread:
            message = consumer.poll(10)
            assert message is not None, f"{topic} can be read to its end"
            assert message.error() is None, message.error()
            partition, offset = message.partition(), message.offset()
            assert partition is not None
            assert offset is not None
            if offset >= ends[partition] - 1:
                unread.discard(partition)
            headers = dict(message.headers() or ())
            if incarnation is None or headers.get("incarnation") == incarnation.hex().encode():
                found.append(_shipped(message, partition, headers))
    finally:
        consumer.close()
    return found


def _shipped(message: Message, partition: int, headers: Mapping[str, object]) -> Shipped:
    key, value = message.key(), message.value()
    assert key is not None
    assert value is not None
    names = {name: value for name, value in headers.items() if isinstance(value, bytes)}
    return Shipped(partition, key.decode(), int(names["seq"]), int(names["epoch"]), value, names)


def assert_complete(records: list[Shipped], last: int, after: int = 0) -> None:
    """None is missing; repeats are allowed; in each partition, first occurrences are in order."""
    missing = set(range(after + 1, last + 1)) - {record.sequence for record in records}
    assert not missing, f"{len(missing)} of {last} changes never reached Kafka, the first is {min(missing)}"
    seen: dict[int, dict[int, None]] = {}
    for record in records:
        seen.setdefault(record.partition, {}).setdefault(record.sequence, None)
    for partition, sequences in seen.items():
        assert list(sequences) == sorted(sequences), f"partition {partition} is out of order"


class Beside(Protocol):
    """The shard that a cdc process is started beside: a tiny one or a real one."""

    shard: int
    data_dir: Path
    grpc: str


@dataclass
class CdcProcess:
    """`python -m cdc`, as the supervisor starts it."""

    shard: Beside
    bootstrap: str
    log: Path
    settings: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    ops: str = ""

    def start(self) -> None:
        self.ops = f"127.0.0.1:{free_port()}"
        environment = {
            **os.environ,
            "TOLLGATE_SHARD__ID": str(self.shard.shard),
            "TOLLGATE_SHARD__DATA_DIR": str(self.shard.data_dir),
            "TOLLGATE_SHARD__GRPC": self.shard.grpc,
            "TOLLGATE_KAFKA_BOOTSTRAP": self.bootstrap,
            "TOLLGATE_CDC__OPS": self.ops,
            **self.settings,
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cdc"], cwd=_ROOT, env=environment, stderr=log, stdout=log
            )

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        """SIGTERM; the exit code, which must come within 10 s."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(f"http://{self.ops}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return sum(
            float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name
        )

    def ready(self) -> tuple[bool, str]:
        try:
            with urllib.request.urlopen(f"http://{self.ops}/readyz", timeout=5):
                return True, ""
        except HTTPError as error:
            with error:
                return False, str(json.loads(error.read())["detail"])
        except (URLError, OSError):
            return False, "no answer"

    def said(self, text: str) -> bool:
        return text in self.log.read_text()


@contextmanager
def tiny_shard(folder: Path, shard: int = 0) -> Iterator[TinyShard]:
    tiny = TinyShard(folder / f"shard-{shard}", shard, free_port())
    tiny.open()
    tiny.serve()
    try:
        yield tiny
    finally:
        tiny.stop_serving()
        tiny.close()


@contextmanager
def running(cdc: CdcProcess) -> Iterator[CdcProcess]:
    cdc.start()
    try:
        yield cdc
    finally:
        if cdc.process is not None and cdc.process.poll() is None:
            cdc.kill()


def wait_acknowledged(shard: TinyShard, timeout_s: float = 60.0) -> None:
    wait_until(
        lambda: shard.acknowledged() == shard.last, f"changes up to {shard.last} acknowledged", timeout_s
    )
