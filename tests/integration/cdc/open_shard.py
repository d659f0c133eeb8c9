"""A shard's production store, committer and service in this process, on a real RocksDB; and its tailer, with
a Kafka in memory. What a test breaks, it breaks between two steps of either.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, Final, cast

from cdc.cursor import Acknowledger, Delivered, Span
from cdc.publisher import Reports
from cdc.record import Record
from cdc.runner import Runner
from cdc.source import RocksSource
from cdc.tailer import Identity, Policy, Tailer
from cdc.topic_watch import Topic, TopicWatch
from gateway.bootstrap import build_committer
from gateway.committer import Committer
from gateway.metrics import Metrics
from gateway.planner import Acceptance, Acknowledgement, Pruning
from gateway.rpc.shard_service import ShardService
from gateway.store.folder import open_watermark, prepare_folder
from gateway.store.opening import open_store
from gateway.store.rocks import RocksStore
from tests.fixtures.shard import PromptDisk, shard_settings
from tollgate.clock import FakeClock
from tollgate.errors import OperationalError, RejectedInput
from tollgate.kafka_topics import Seen, SeenTopic
from tollgate.shard_layout import CHANGES, COLUMN_FAMILIES, DATABASE_DIR, decode_u64, encode_u64
from tollgate.topics import CHANGES as CHANGES_TOPIC
from tollgate.v1.payment_pb2 import Capture, Payment, Status
from tollgate.v1.shard_pb2 import (
    ApplyStatusResponse,
    ReadChangesRequest,
    ReadChangesResponse,
    StatusUpdate,
)

SHARD: Final = 3  # as in shard_settings
PARTITIONS: Final = 3
WINDOW: Final = 60
_LARGE: Final = "x" * 40_000  # a few of these are a piece of the log


class OpenShard:
    """Call everything on the running loop. It is also what the tailer talks to: `ShardApi`."""

    def __init__(self, data_dir: Path, clock: FakeClock, random: Random) -> None:
        self.data_dir = data_dir
        self._clock = clock
        self._random = random
        self._accepted = 0
        self.is_open = False
        self.committer: Committer
        self.store: RocksStore

    def open(self) -> None:
        """As a start does. Raises CorruptionError."""
        left = prepare_folder(self.data_dir)
        self.store = RocksStore(self.data_dir / DATABASE_DIR)
        try:
            opened = open_store(self.store, SHARD, self._random.randbytes, left)
        except BaseException:
            self.store.close()
            raise
        settings, metrics = shard_settings(self.data_dir), Metrics()
        self._watermark = open_watermark(self.data_dir)
        self.committer = build_committer(
            settings, self.store, opened, PromptDisk(self.store), self._watermark, self._clock, metrics, print
        )
        self._service = ShardService(self.committer, self.store, metrics)
        self.is_open = True

    def close(self) -> None:
        if self.is_open:
            self._watermark.close()
            self.store.close()
            self.is_open = False

    async def accept(self, count: int, *, large: bool = False) -> None:
        """One commit."""
        waiting = []
        for _ in range(count):
            self._accepted += 1
            payment = Payment(
                merchant="acme",
                status=Status.STATUS_PENDING,
                capture=Capture.CAPTURE_AUTOMATIC,
                description=_LARGE if large else "",
            ).SerializeToString()
            waiting.append(self.committer.submit(Acceptance(f"acme/{self._accepted:08}", payment, b"", "")))
        for waiter in waiting:
            await waiter

    async def prune(self, through: int) -> None:
        await self.committer.commit(Pruning(through))

    def flush_memtables(self, *families: str) -> None:
        """Memtables become tables now, as they do by themselves at 16 MiB; their write-ahead log goes."""
        for family in families or COLUMN_FAMILIES:
            self.store._families[family].flush()

    def compact(self) -> None:
        for family in COLUMN_FAMILIES:
            self.store._families[family].compact_range(None, None)

    def log(self) -> dict[int, bytes]:
        """Every change that is in the store."""
        rows = self.store.scan(CHANGES, b"", 1_000_000)
        return {decode_u64(key): value for key, value in rows}

    def lose_change(self, sequence: int) -> bytes:
        """By hand, which no shard would do."""
        lost = self.store.get(CHANGES, encode_u64(sequence))
        assert lost is not None
        self.store._families[CHANGES].delete(encode_u64(sequence))
        return lost

    def copy_to(self, folder: Path) -> None:
        """What a kill -9 would leave now. Copied again when RocksDB has made or removed files meanwhile."""
        ignored = shutil.ignore_patterns("LOCK", "LOG*", "cdc-secondary")
        while True:
            before = self._files()
            with suppress(shutil.Error):
                shutil.copytree(self.data_dir, folder, ignore=ignored)
                if self._files() == before:
                    return
            shutil.rmtree(folder)

    def _files(self) -> dict[str, int]:
        return {path.name: path.stat().st_size for path in (self.data_dir / DATABASE_DIR).glob("[M0-9]*")}

    def become(self, folder: Path) -> None:
        """Another folder takes the place of this one; closed before and after."""
        shutil.rmtree(self.data_dir)
        folder.rename(self.data_dir)

    async def acknowledge(self, identity: Identity, sequence: int) -> bool:
        self._check_open()
        try:
            await self.committer.commit(Acknowledgement(*identity, sequence))
        except RejectedInput as error:
            raise OperationalError(error.message) from error
        return False

    async def read_changes(self, from_sequence: int, limit: int) -> ReadChangesResponse:
        self._check_open()
        request = ReadChangesRequest(from_sequence=from_sequence, limit=limit)
        return await self._service.ReadChanges(request, cast(Any, None))  # it aborts no such call

    async def apply_status(self, updates: Sequence[StatusUpdate]) -> ApplyStatusResponse:
        raise AssertionError("no status here")

    def _check_open(self) -> None:
        if not self.is_open:
            raise OperationalError("The shard is down.")


class Kafka:
    """Partitions, each in the order in which it took its records; a producer's queue is a process's own."""

    def __init__(self) -> None:
        self.partitions: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
        self.has: set[bytes] = set()
        self.repeats = 0

    def append(self, partition: int, value: bytes) -> None:
        self.repeats += value in self.has
        self.has.add(value)
        self.partitions[partition].append(value)

    def first_occurrences(self, log: dict[int, bytes]) -> list[list[int]]:
        """The sequences of `log`, partition by partition."""
        sequence_of = {value: sequence for sequence, value in log.items()}
        return [
            [sequence_of[value] for value in dict.fromkeys(partition) if value in sequence_of]
            for partition in self.partitions
        ]


class Producer:
    """A `ChangePublisher` whose records Kafka takes when the test says so."""

    def __init__(self, kafka: Kafka, on_reports: Reports) -> None:
        self._kafka = kafka
        self._on_reports = on_reports
        self._queues: list[deque[tuple[int, Record]]] = [deque() for _ in range(PARTITIONS)]
        self._generation = 0
        self.broken: str | None = None
        self.awaited = False

    def publish(self, identity: Identity, records: Sequence[Record]) -> int:
        for record in records:
            self._queues[record.sequence % PARTITIONS].append((self._generation, record))
        return len(records)

    def deliver(self, partition: int, count: int, *, reported: bool = True) -> None:
        for _ in range(min(count, len(self._queues[partition]))):
            generation, record = self._queues[partition].popleft()
            self._kafka.append(partition, record.value)
            if reported:
                self._on_reports(generation, [Span(record.sequence, record.sequence)])

    def deliver_all(self) -> None:
        for partition in range(PARTITIONS):
            self.deliver(partition, len(self._queues[partition]))

    def poll(self) -> None: ...

    def forget(self) -> int:
        self._generation += 1
        return self._generation

    async def restart(self, topic: Topic) -> int:
        """Only before the first record: nothing breaks it."""
        return self.forget()

    async def close(self, flush_s: float) -> None: ...


class QuietBell:
    """Nobody waits: the clock goes on instead."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock

    def watch(self, path: Path) -> None: ...

    def clear(self) -> None: ...

    async def wait(self, timeout_s: float) -> None:
        self._clock.advance(timeout_s)

    def close(self) -> None: ...


class TailerProcess:
    """Everything of a cdc process but the process."""

    def __init__(self, shard: OpenShard, kafka: Kafka, clock: FakeClock) -> None:
        self._clock = clock
        self.source = RocksSource(shard.data_dir, clock, QuietBell(clock))
        self.tailer = Tailer(SHARD, Policy(batch_records_max=20))
        self.delivered = Delivered()
        self.acknowledger = Acknowledger(self.delivered, shard)
        self.topics = TopicWatch(lambda: Seen(embedded=True, topics={CHANGES_TOPIC: SeenTopic(12, 1, {})}))
        self.producer: Producer

        def open_producer(on_reports: Reports) -> Producer:
            self.producer = Producer(kafka, on_reports)
            return self.producer

        self.runner = Runner(
            tailer=self.tailer,
            delivered=self.delivered,
            acknowledger=self.acknowledger,
            source=self.source,
            open_publisher=open_producer,
            shard=shard,
            clock=clock,
            topics=self.topics,
            in_flight_records_max=WINDOW,
        )

    @property
    def halted(self) -> str | None:
        return self.tailer.halted

    async def step(self, count: int = 1) -> None:
        if self.topics.topic is None:
            await self.topics.look()
        for _ in range(count):
            self._clock.advance(0.6)  # more than between two looks at the watermark's file
            await self.runner.step()

    async def acknowledge(self) -> None:
        """What a shard that is down, or another one by now, refuses is told again."""
        try:
            await self.acknowledger.acknowledge_once()
        except OperationalError:
            return

    def kill(self) -> None:
        """What it had in memory is gone; what Kafka has taken of it, Kafka has."""
        self.runner._thread.shutdown()
        self.source.close()

    async def ship_everything(self, shard: OpenShard) -> None:
        """Left alone, all of the log arrives. Fails when it doesn't."""
        for _ in range(400):
            if shard.committer.durable.acknowledged == shard.committer.durable.last:
                return
            await self.step()
            self.producer.deliver_all()
            await self.acknowledge()
        raise AssertionError(f"{shard.committer.durable}, {self.tailer.position}, {self.tailer.halted}")
