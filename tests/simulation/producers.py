"""The parts' producers over the simulated broker: the tailer's, the processor's, the status feed's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from cdc.cursor import Span
from cdc.dead_letters import DeadLetter
from cdc.home import Home
from cdc.publisher import Reports
from cdc.record import Record
from cdc.tailer import Identity
from cdc.topic_watch import Topic
from processor.kafka.producer import Outgoing
from tests.simulation.kafka import PARTITIONS, Broker, Place, Producer, partition_of
from tests.simulation.loop import current
from tollgate.topics import CHANGES, DLQ

_QUEUE_MAX: Final = 200


class SimPublisher:
    """cdc.publisher.ChangePublisher."""

    def __init__(self, broker: Broker, shard: int, on_reports: Reports) -> None:
        self._broker = broker
        self._home = Home(shard, PARTITIONS)
        self._on_reports = on_reports
        self._producer = Producer(broker)
        self._generation = 0
        self._queued = 0
        self.broken: str | None = None
        self.awaited = False

    def publish(self, identity: Identity, records: Sequence[Record]) -> int:
        if self.broken is not None:
            return 0
        count = min(len(records), _QUEUE_MAX - self._queued)
        for record in records[:count]:
            self._queued += 1
            place: Place = (CHANGES, self._home.of(record.key))
            self._producer.produce(place, record.key, record.value, (), self._reporter(record.sequence))
        return count

    def _reporter(self, sequence: int):  # type: ignore[no-untyped-def]
        generation, producer = self._generation, self._producer

        def report(delivered: bool) -> None:
            if producer is self._producer:
                self._queued -= 1
                self._on_reports(generation, [Span(sequence, sequence)])

        return report

    def breaks(self, reason: str) -> None:
        self.broken = reason
        self._producer.end()

    def poll(self) -> None:
        """Reports come by themselves here."""

    def forget(self) -> int:
        self._generation += 1
        return self._generation

    async def restart(self, topic: Topic) -> int:
        self._generation += 1
        self._producer.end()
        await asyncio.sleep(self._broker.delay_us() / 1e6)
        self._producer = Producer(self._broker)
        self._queued = 0
        self.broken = None
        return self._generation

    async def close(self, flush_s: float) -> None:
        self._producer.end()


class SimPublishing:
    """processor.kafka.producer.Publishing. `breaks` makes what is under way undelivered, as a fatal error
    does."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._owner = current()
        self._producer = Producer(broker)
        self._waiting: dict[asyncio.Future[None], list[bool]] = {}

    async def publish(self, outgoing: Sequence[Outgoing]) -> list[bool]:
        if not outgoing:
            return []
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        delivered = [False] * len(outgoing)
        left = len(outgoing)

        def reporter(index: int):  # type: ignore[no-untyped-def]
            def report(ok: bool) -> None:
                nonlocal left
                delivered[index] = ok
                left -= 1
                if left == 0 and not done.done():
                    done.set_result(None)

            return report

        self._waiting[done] = delivered
        for index, record in enumerate(outgoing):
            partition = partition_of(record.key) if record.partition is None else record.partition
            place: Place = (record.topic, partition)
            self._producer.produce(place, record.key, record.value, record.headers, reporter(index))
        try:
            await done
        finally:
            self._waiting.pop(done, None)
        return delivered

    def breaks(self) -> None:
        self._producer.end()
        self._producer = self._owner.run(Producer, self._broker)
        for done in self._waiting:
            if not done.done():
                done.set_result(None)


class SimDeadLetters:
    """cdc.dead_letters.DeadLetters."""

    def __init__(self, broker: Broker) -> None:
        self._publishing = SimPublishing(broker)

    async def send(self, letter: DeadLetter) -> None:
        await self._publishing.publish([Outgoing(DLQ, letter.key or b"", letter.value or b"")])
