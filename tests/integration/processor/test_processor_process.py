"""`python -m processor` as it runs: real Kafka, real Postgres, the real simulator, real kills."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from tests.fixtures.changes import accepted_payment, change_record
from tests.fixtures.free_port import free_port
from tests.fixtures.processor_process import RunningProcessor, processor_on
from tests.fixtures.simulator import RunningSimulator
from tollgate import topics
from tollgate.local import process
from tollgate.local.postgres import postgres_dsn as dsn_of
from tollgate.local.postgres import postgres_part
from tollgate.v1.shard_pb2 import StatusUpdate

POLL_S = 0.02  # between two looks at a condition, which has a deadline
DEADLINE_S = 40.0


@pytest.fixture
def run_id() -> str:
    """Kafka is shared by the session: what belongs to a test has its name."""
    return uuid4().hex[:12]


@pytest.fixture
def producer(kafka_bootstrap: str) -> Iterator[Producer]:
    made = Producer({"bootstrap.servers": kafka_bootstrap, "partitioner": "murmur2_random", "acks": "all"})
    yield made
    made.flush(5)


def ship(producer: Producer, run_id: str, numbers: range) -> dict[int, int]:
    """The first offset of it in each partition."""
    first: dict[int, int] = {}

    def on_delivery(_error: object, message: Message) -> None:
        first.setdefault(message.partition() or 0, message.offset() or 0)

    for number in numbers:
        now_us = time.time_ns() // 1000
        payment = accepted_payment(f"{run_id}-{number:06d}", now_us=now_us)
        record = change_record(payment, shard=number % 2)
        headers: list[tuple[str, str | bytes | None]] = list(record.headers)
        producer.produce(
            record.topic, key=record.key, value=record.value, headers=headers, on_delivery=on_delivery
        )
    assert producer.flush(10) == 0
    return first


def read_all(bootstrap: str, topic: str, wanted: int, mine: bytes) -> list[Message]:
    """Everything of this test in `topic`, once there are `wanted` of it."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": uuid4().hex, "auto.offset.reset": "earliest"}
    )
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    found: list[Message] = []
    deadline = time.monotonic() + DEADLINE_S
    try:
        while len(found) < wanted:
            assert time.monotonic() < deadline, f"{len(found)} of {wanted} records in {topic}"
            found += [
                message
                for message in consumer.consume(1000, timeout=0.1)
                if message.error() is None and mine in (message.key() or b"")
            ]
    finally:
        consumer.close()
    return found


async def until_succeeded(dsn: str, run_id: str, wanted: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        connection = await asyncpg.connect(dsn, timeout=5)
        try:
            found = await connection.fetchval(
                "SELECT count(*) FROM payments WHERE status = 'succeeded' AND checkout_id LIKE $1",
                run_id + "%",
            )
        finally:
            await connection.close()
        if found == wanted:
            return
        assert time.monotonic() < deadline, f"{found} of {wanted} payments succeeded"
        await asyncio.sleep(POLL_S)


async def assert_one_effect_each(simulator: RunningSimulator, run_id: str, wanted: int) -> None:
    """Other tests' changes are in the same topic: only this run's payments are counted."""
    ledger = await simulator.ledger()
    of_all = (effect["checkout_id"] for effect in ledger["effects"])
    effects = Counter(checkout_id for checkout_id in of_all if checkout_id.startswith(run_id))
    assert len(effects) == wanted
    assert set(effects.values()) == {1}


async def test_changes_become_payments_events_and_status_updates_and_sigterm_ends_it_cleanly(
    tmp_path: Path,
    kafka_bootstrap: str,
    postgres_dsn: str,
    simulator: RunningSimulator,
    producer: Producer,
    run_id: str,
) -> None:
    async with processor_on(tmp_path, postgres_dsn, kafka_bootstrap, simulator.url) as processor:
        await processor.ready()
        producer.produce(topics.CHANGES, key=f"{run_id}-poison".encode(), value=b"\xff")
        ship(producer, run_id, range(30))
        await until_succeeded(postgres_dsn, run_id, 30)
        mine = run_id.encode()
        events = await asyncio.to_thread(read_all, kafka_bootstrap, topics.EVENTS, 90, mine)
        statuses = await asyncio.to_thread(read_all, kafka_bootstrap, topics.STATUS, 30, mine)
        (dead,) = await asyncio.to_thread(read_all, kafka_bootstrap, topics.DLQ, 1, mine)
        assert await processor.stop() == 0
    assert dead.value() == b"\xff"
    versions: dict[object, list[bytes]] = {}
    for event in events:
        headers = {str(header[0]): header[1] for header in event.headers() or ()}
        versions.setdefault(event.key(), []).append(bytes(headers["ce_id"])[-1:])  # type: ignore[arg-type]
    assert all(seen == [b"1", b"2", b"3"] for seen in versions.values())
    for status in statuses:
        update = StatusUpdate.FromString(status.value() or b"")
        assert update.payment.version >= 1
    assert {status.partition() for status in statuses} <= {0, 1}
    await assert_one_effect_each(simulator, run_id, 30)


@pytest.mark.fault
async def test_offsets_never_pass_what_postgres_has_and_a_kill_before_the_commit_loses_nothing(
    tmp_path: Path,
    kafka_bootstrap: str,
    postgres_dsn: str,
    simulator: RunningSimulator,
    producer: Producer,
    run_id: str,
) -> None:
    """Fetched, handed to intake, and refused until the client has had its time to commit twice over."""
    async with processor_on(tmp_path, postgres_dsn, kafka_bootstrap, simulator.url) as processor:
        await processor.ready()
        async with refusing_payments(postgres_dsn):
            first = ship(producer, run_id, range(30))
            await until_refused(processor, 6)  # 1.5 s of waits between them
            processor.kill()
            committed = await asyncio.to_thread(offsets_committed, kafka_bootstrap, first)
            assert {number: offset for number, offset in committed.items() if offset > first[number]} == {}
        processor.start()
        await until_succeeded(postgres_dsn, run_id, 30)
        await assert_one_effect_each(simulator, run_id, 30)


@asynccontextmanager
async def refusing_payments(dsn: str) -> AsyncIterator[None]:
    """Postgres takes no payment and says that it is a matter of time."""
    connection = await asyncpg.connect(dsn, timeout=5)
    try:
        await connection.execute("""
            CREATE FUNCTION not_now() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = 'cannot_connect_now'; END $$;
            CREATE TRIGGER not_now BEFORE INSERT ON payments EXECUTE FUNCTION not_now()
        """)
        try:
            yield
        finally:
            await connection.execute("DROP FUNCTION not_now CASCADE")
    finally:
        await connection.close()


async def until_refused(processor: RunningProcessor, times: int) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while processor.part.log.read_text().count("intake_waits") < times:
            await asyncio.sleep(POLL_S)


def offsets_committed(bootstrap: str, partitions: Iterable[int]) -> dict[int, int]:
    """Negative where nothing is."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": topics.INTAKE_GROUP})
    try:
        places = [TopicPartition(topics.CHANGES, number) for number in partitions]
        return {place.partition: place.offset for place in consumer.committed(places, timeout=10)}
    finally:
        consumer.close()


@pytest.mark.fault
async def test_it_waits_for_postgres_and_survives_kills_of_itself_and_of_postgres(
    tmp_path: Path, kafka_bootstrap: str, simulator: RunningSimulator, producer: Producer, run_id: str
) -> None:
    postgres_folder = tmp_path / "postgres"
    port = free_port()
    part = postgres_part(postgres_folder / "data", postgres_folder / "log", port)
    part.prepare()
    dsn = dsn_of(port)
    async with processor_on(tmp_path, dsn, kafka_bootstrap, simulator.url) as processor:
        await until_not_ready_for_postgres(processor)
        postgres = process.start(part)
        try:
            await processor.ready()
            ship(producer, run_id, range(100))
            await simulator.until(lambda ledger: len(ledger["effects"]) > 20)
            processor.kill()
            processor.start()
            ship(producer, run_id, range(100, 200))
            await simulator.until(lambda ledger: len(ledger["effects"]) > 120)
            os.kill(postgres.pid, 9)
            postgres.wait()
            await until_not_ready_for_postgres(processor)
            postgres = process.start(part)
            await process.wait_ready(part, postgres, timeout_s=30)
            ship(producer, run_id, range(200, 250))
            await until_succeeded(dsn, run_id, 250)
            await assert_one_effect_each(simulator, run_id, 250)
            await processor.ready()
            assert await processor.stop() == 0
        finally:
            await process.stop(part, postgres)


async def until_not_ready_for_postgres(processor: RunningProcessor) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            answer = await processor.readyz()
            if answer and answer[0] == 503 and "Postgres" in answer[1]:
                return
            await asyncio.sleep(POLL_S)
