"""Offsets are committed after the handler is done, and never before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from processor.changes import ChangeRecord
from processor.kafka.consumer import GROUP, ChangeConsumer
from processor.kafka.consumer import Handler as Handle
from processor.kafka.producer import Outgoing, Publisher
from tollgate import topics
from tollgate.errors import OperationalError

POLL_S = 0.02  # between two looks at a condition, which has a deadline


@pytest.fixture
def run_id() -> bytes:
    return uuid4().hex.encode()


@asynccontextmanager
async def consuming(bootstrap: str, handle: Handle) -> AsyncIterator[ChangeConsumer]:
    consumer = ChangeConsumer(bootstrap, handle, batch_max=100)
    consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


class Handler:
    """Refuses the test's own records until told otherwise."""

    def __init__(self, run_id: bytes, *, down: bool = False) -> None:
        self.run_id = run_id
        self.down = down
        self.refused = 0
        self.handled: list[bytes] = []
        self.seen = asyncio.Event()

    async def __call__(self, records: Sequence[ChangeRecord]) -> None:
        mine = [record.value for record in records if record.key == self.run_id]
        if mine and self.down:
            self.refused += 1
            self.seen.set()
            raise OperationalError("Postgres is down.")
        self.handled += mine
        if mine:
            self.seen.set()

    async def until_seen(self) -> None:
        async with asyncio.timeout(20):
            await self.seen.wait()
        self.seen.clear()


def place_of(bootstrap: str, run_id: bytes, value: bytes) -> tuple[int, int]:
    """Produces one record; its partition and offset."""
    producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random"})
    places: list[tuple[int, int]] = []
    producer.produce(
        topics.CHANGES,
        key=run_id,
        value=value,
        on_delivery=lambda _error, message: places.append((message.partition() or 0, message.offset() or 0)),
    )
    assert producer.flush(10) == 0
    return places[0]


def committed(bootstrap: str, partition: int) -> int:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": GROUP})
    try:
        return consumer.committed([TopicPartition(topics.CHANGES, partition)], timeout=10)[0].offset
    finally:
        consumer.close()


async def test_a_batch_that_could_not_be_stored_is_offered_again_and_committed_only_then(
    kafka_bootstrap: str, run_id: bytes
) -> None:
    partition, offset = place_of(kafka_bootstrap, run_id, b"first")
    handler = Handler(run_id, down=True)
    async with consuming(kafka_bootstrap, handler):
        for _ in range(3):
            await handler.until_seen()
        assert await asyncio.to_thread(committed, kafka_bootstrap, partition) <= offset
        handler.down = False
        async with asyncio.timeout(20):
            while await asyncio.to_thread(committed, kafka_bootstrap, partition) <= offset:
                await asyncio.sleep(POLL_S)
        assert handler.handled == [b"first"]
        handler.seen.clear()
        await asyncio.to_thread(place_of, kafka_bootstrap, run_id, b"second")
        await handler.until_seen()
        assert handler.handled == [b"first", b"second"]


async def test_a_consumer_that_ends_without_success_leaves_the_batch_to_the_next(
    kafka_bootstrap: str, run_id: bytes
) -> None:
    place_of(kafka_bootstrap, run_id, b"only")
    failing = Handler(run_id, down=True)
    async with consuming(kafka_bootstrap, failing):
        await failing.until_seen()
    working = Handler(run_id)
    async with consuming(kafka_bootstrap, working):
        await working.until_seen()
    assert (failing.handled, working.handled) == ([], [b"only"])


async def test_a_handler_with_a_defect_ends_the_consumer_loudly_and_commits_nothing(
    kafka_bootstrap: str, run_id: bytes
) -> None:
    async def defective(records: Sequence[ChangeRecord]) -> None:
        if any(record.key == run_id for record in records):
            raise RuntimeError("a defect in intake")

    place_of(kafka_bootstrap, run_id, b"kept")
    async with consuming(kafka_bootstrap, defective) as consumer:
        with pytest.raises(RuntimeError, match="defect"):
            await asyncio.wait_for(consumer.failed, 20)
    working = Handler(run_id)
    async with consuming(kafka_bootstrap, working):
        await working.until_seen()
    assert working.handled == [b"kept"]


async def test_the_publisher_reports_each_delivery_and_a_topic_that_is_not_there(
    kafka_bootstrap: str, run_id: bytes
) -> None:
    publisher = Publisher(kafka_bootstrap)
    try:
        good = [Outgoing(topics.EVENTS, run_id, b"%d" % number) for number in range(50)]
        assert await publisher.publish(good) == [True] * 50
        assert await publisher.publish([]) == []
        assert await publisher.publish([good[0], Outgoing("payments.nowhere", run_id, b"")]) == [True, False]
        assert await asyncio.to_thread(publisher.probe, topics.CHANGES) is None
        assert "payments.nowhere" in (await asyncio.to_thread(publisher.probe, "payments.nowhere") or "")
    finally:
        await asyncio.to_thread(publisher.close)
