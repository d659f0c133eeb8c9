"""A shard's cdc: the production tailer, acknowledger and status feed between volume, Kafka and shard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final, cast

from cdc.cursor import Acknowledger, Delivered
from cdc.pace import Pace, PacePolicy
from cdc.patient_shard import PatientShard
from cdc.publisher import ChangePublisher, Reports
from cdc.runner import Runner
from cdc.status_feed import StatusFeed
from cdc.status_refresh import NoRefresh
from cdc.status_topic import Beginning, Position, StatusRecord, beginning
from cdc.tailer import Identity, Policy, Store, Tailer
from cdc.topic_watch import Topic, TopicWatch
from tests.simulation.kafka import PARTITIONS, Broker
from tests.simulation.loop import VirtualLoop
from tests.simulation.network import Network
from tests.simulation.producers import SimDeadLetters, SimPublisher
from tests.simulation.shard import Context, SimShard, Volume, called
from tollgate.errors import OperationalError
from tollgate.shard_layout import (
    CHANGES,
    META,
    META_ACKNOWLEDGED,
    META_EPOCH,
    META_INCARNATION,
    META_SHARD,
    decode_u64,
    encode_u64,
)
from tollgate.topics import STATUS
from tollgate.v1.shard_pb2 import (
    AcknowledgeChangesRequest,
    ApplyStatusRequest,
    ApplyStatusResponse,
    ReadChangesRequest,
    ReadChangesResponse,
    StatusUpdate,
)
from tollgate.watermark import Watermark

WINDOW: Final = 64
_CALL_S: Final = 2.0
_POLL_S: Final = 0.3
_COMMIT_EVERY_S: Final = 0.5
_BATCH: Final = 20


@dataclass
class Sight:
    """How well the secondary sees: shares of the looks that miss the tail, and that fail."""

    misses: float = 0.02
    fails: float = 0.0


class VolumeSource:
    """cdc.source.Source over a volume: it may see the tail late, or for once nothing at all."""

    def __init__(self, volume: Volume, random: Random, sight: Sight) -> None:
        self._volume = volume
        self._random = random
        self._sight = sight
        self._rung = asyncio.Event()
        volume.on_watermark = self._ring

    def _ring(self) -> None:
        self._loop_of_reader.call_soon(self._rung.set, context=self._context)

    def belongs_to(self, loop: VirtualLoop, context: Any) -> None:
        self._loop_of_reader, self._context = loop, context

    def watermark(self) -> Watermark | None:
        return self._volume.watermark

    async def wait_for_change(self, seen: Watermark | None, timeout_s: float) -> None:
        self._rung.clear()
        if self._volume.watermark == seen:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._rung.wait()
            except TimeoutError:
                return

    def open(self) -> Store:
        self._check("opening")
        meta = self._volume.family(META)
        if META_INCARNATION not in meta or META_EPOCH not in meta:
            raise OperationalError("There is no store yet.")
        identity = Identity(meta[META_INCARNATION], decode_u64(meta[META_EPOCH]))
        return Store(decode_u64(meta[META_SHARD]), identity, decode_u64(meta[META_ACKNOWLEDGED]))

    def read(self, after: int, up_to: int) -> list[tuple[int, bytes]]:
        self._check("reading")
        if self._random.random() < self._sight.misses:
            up_to -= 1 + int(self._random.random() * 3)
        changes = self._volume.family(CHANGES)
        found = ((sequence, changes.get(encode_u64(sequence))) for sequence in range(after + 1, up_to + 1))
        rows = [(sequence, value) for sequence, value in found if value is not None]
        if rows and self._random.random() < self._sight.misses / 2:
            del rows[int(self._random.random() * len(rows))]  # a hole, or a tail once more
        return rows

    def _check(self, doing: str) -> None:
        if self._sight.fails and self._random.random() < self._sight.fails:
            raise OperationalError(f"The store failed while {doing}.")

    def close(self) -> None:
        """Nothing is open."""


class ShardCalls:
    """cdc.shard_client.ShardApi over the simulated network."""

    def __init__(self, network: Network, shard: Callable[[], SimShard | None]) -> None:
        self._network = network
        self._shard = shard

    async def _call(self, act: Callable[[SimShard], Any]) -> Any:
        shard = self._shard()
        if shard is None:
            raise OperationalError("The shard is down.")
        return await called(self._network, lambda: shard.process, lambda: act(shard), _CALL_S)

    async def acknowledge(self, identity: Identity, sequence: int) -> bool:
        request = AcknowledgeChangesRequest(
            incarnation=identity.incarnation, epoch=identity.epoch, sequence=sequence
        )
        answer = await self._call(
            lambda shard: shard.service.AcknowledgeChanges(request, cast(Any, Context()))
        )
        return bool(answer.awaited)

    async def read_changes(self, from_sequence: int, limit: int) -> ReadChangesResponse:
        request = ReadChangesRequest(from_sequence=from_sequence, limit=limit)
        answer = await self._call(lambda shard: shard.service.ReadChanges(request, cast(Any, Context())))
        return cast(ReadChangesResponse, answer)

    async def apply_status(self, updates: Sequence[StatusUpdate]) -> ApplyStatusResponse:
        request = ApplyStatusRequest(updates=updates)
        answer = await self._call(lambda shard: shard.service.ApplyStatus(request, cast(Any, Context())))
        return cast(ApplyStatusResponse, answer)


class SimStatusSource:
    """cdc.status_topic.StatusSource: the shard's partition from where the group of this store stands."""

    def __init__(self, broker: Broker, shard: int, incarnation: bytes) -> None:
        self._broker = broker
        self._shard = shard
        self._group = f"status-{shard}-{incarnation.hex()}"
        self._next = 0
        self._done: Position | None = None
        self._commit_at = 0.0

    async def begin(self) -> Beginning:
        await asyncio.sleep(self._broker.delay_us() / 1e6)
        if not self._broker.up:
            raise OperationalError("Kafka does not answer.")
        stored = self._broker.committed.get((self._group, self._shard))
        high = len(self._broker.log(STATUS, self._shard))
        found = beginning(Position(*stored) if stored else None, 0, high)
        self._next = found.offset
        return found

    async def next_batch(self) -> Sequence[StatusRecord]:
        self._commit_when_due()
        log = self._broker.log(STATUS, self._shard)
        if not self._broker.up or self._next >= len(log):
            await asyncio.sleep(_POLL_S)
            return []
        records = log[self._next : self._next + _BATCH]
        self._next += len(records)
        await asyncio.sleep(self._broker.delay_us() / 1e6)
        return [StatusRecord(self._shard, one.offset, one.key, one.value) for one in records]

    def _commit_when_due(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._done is not None and now >= self._commit_at and self._broker.up:
            self._commit_at = now + _COMMIT_EVERY_S
            self._broker.committed[self._group, self._shard] = (self._done.offset, self._done.published_at_us)
            self._done = None

    async def done(self, offset: int, published_at_us: int) -> None:
        self._done = Position(offset, published_at_us)

    async def close(self) -> None:
        """What is done and not committed is read again."""


class _SeenTopic:
    """The topic as it must be."""

    topic = Topic(PARTITIONS, 1_000_000)
    trouble = None

    async def look(self) -> None:
        """It stays so."""


class SimCdc:
    """One life of a cdc process."""

    def __init__(
        self,
        loop: VirtualLoop,
        random: Random,
        network: Network,
        broker: Broker,
        volume: Volume,
        shard: Callable[[], SimShard | None],
        sight: Sight,
    ) -> None:
        self.process = loop.process(f"cdc-{volume.shard}")
        self.publishers: list[SimPublisher] = []
        self._broker = broker
        self._shard = volume.shard
        self.process.run(self._build, random, network, volume, shard, sight)

    def _build(
        self,
        random: Random,
        network: Network,
        volume: Volume,
        shard: Callable[[], SimShard | None],
        sight: Sight,
    ) -> None:
        calls, delivered, process = ShardCalls(network, shard), Delivered(), self.process
        source = VolumeSource(volume, random, sight)
        source.belongs_to(process.loop, process.context)
        self.tailer = Tailer(volume.shard, Policy(batch_records_max=20, room_records_min=4))
        self.runner = Runner(
            tailer=self.tailer,
            delivered=delivered,
            acknowledger=Acknowledger(delivered, calls),
            source=source,
            open_publisher=self._open_publisher,
            shard=calls,
            clock=process,
            topics=cast(TopicWatch, _SeenTopic()),
            in_flight_records_max=WINDOW,
            pace=Pace(PacePolicy(WINDOW, 16)),
        )
        applying = PatientShard(calls)
        feed = StatusFeed(
            incarnation=self.runner.incarnation,
            open_source=lambda incarnation: SimStatusSource(self._broker, volume.shard, incarnation),
            shard=applying,
            refresh=NoRefresh(),
            dead_letters=SimDeadLetters(self._broker),
        )
        for part in (self.runner.run(), self.runner.acknowledger.run(), feed.run()):
            process.spawn(part)

    def _open_publisher(self, on_reports: Reports) -> ChangePublisher:
        publisher = SimPublisher(self._broker, self._shard, on_reports)
        self.publishers.append(publisher)
        return publisher
