"""Whatever a broker answers to what is produced: nothing is passed over, and it goes on by itself.

A real shard, a real tailer and a real broker; between the last two a wire that refuses, lies or breaks. Every
payment is in the same partition, and the request that is refused is the first of its producer: a broker that
knows nothing of a producer takes its second batch without the first.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from cdc.home import Home
from processor.kafka.producer import Outgoing, Publisher
from tests.fixtures.gateway_process import GatewayProcess, gateway
from tests.fixtures.kafka import EmbeddedKafka
from tests.fixtures.kafka_proxy import Fault, Hears, KafkaProxy, proxied_kafka
from tests.fixtures.shard import POLL_S
from tests.fixtures.waiting import wait_until
from tests.integration.cdc.bench import CdcProcess, assert_complete, running, shipped
from tollgate.topics import EVENTS

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]

CAMPAIGN = int(os.environ.get("KAFKA_FAULT_SEEDS", "0"))
SEEDS = range(1, 1 + (CAMPAIGN or 1))
_SHARD = 24
_BACK_S = 30.0

RETRIED = {
    "corrupt message": 2,
    "unknown topic": 3,
    "not the leader": 6,
    "timed out": 7,
    "not enough replicas": 19,
    "not enough replicas after the append": 20,
    "storage error": 56,
}
FATAL = {
    "unknown server error": -1,
    "not authorized": 29,
    "policy violation": 44,
    "out of order": 45,
    "duplicate": 46,
    "fenced epoch": 47,
    "unknown producer": 59,
    "invalid record": 87,
}
CODES = RETRIED | FATAL
# One of each kind in the default run, all of them in the campaign.
SHOWN = [(answer, hears) for answer in CODES for hears in Hears]
if not CAMPAIGN:
    SHOWN = [
        ("not enough replicas", Hears.NO),
        ("fenced epoch", Hears.YES),
        ("duplicate", Hears.NO),
        ("policy violation", Hears.NO),
    ]


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedKafka, KafkaProxy]]:
    with proxied_kafka(tmp_path_factory.mktemp("kafka")) as wire:
        yield wire


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """Each test adds payments and looks at the whole log."""
    with gateway(tmp_path_factory.mktemp("shard"), _SHARD) as shard:
        yield shard


def pay_into(partition: int, shard: GatewayProcess, count: int) -> None:
    """Payments whose changes all go to one partition."""
    number = shard.log_state().durable_sequence * 1_000
    home = Home(_SHARD, 12)  # partitions 0, 1 and 2
    while count:
        number += 1
        checkout_id = f"checkout-{number:09}"
        if home.of(f"acme/{checkout_id}".encode()) == partition:
            shard.pay(checkout_id)
            count -= 1


def wait_shipped(shard: GatewayProcess) -> None:
    last = shard.log_state().durable_sequence
    wait_until(lambda: shard.log_state().acknowledged_sequence == last, f"{last} acknowledged", _BACK_S)


def assert_shipped(shard: GatewayProcess, kafka: EmbeddedKafka, after: int) -> None:
    """All that came after `after` is acknowledged and is there, in order."""
    wait_shipped(shard)
    state = shard.log_state()
    records = shipped(kafka.bootstrap, state.incarnation)
    assert_complete([record for record in records if record.sequence > after], state.durable_sequence, after)


@pytest.mark.parametrize(("answer", "hears"), SHOWN)
def test_a_change_that_was_not_appended_is_never_acknowledged(
    wire: tuple[EmbeddedKafka, KafkaProxy], shard: GatewayProcess, tmp_path: Path, answer: str, hears: Hears
) -> None:
    kafka, proxy = wire
    before = shard.log_state().durable_sequence
    with running(CdcProcess(shard, kafka.bootstrap, tmp_path / "log")):
        pay_into(1, shard, 1)
        wait_shipped(shard)  # now the next payments make requests of their own
        used_up = proxy.play(Fault(hears, CODES[answer]))
        pay_into(0, shard, 5)
        assert_shipped(shard, kafka, before)
    assert used_up()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_storm_of_answers_loses_nothing(
    wire: tuple[EmbeddedKafka, KafkaProxy], shard: GatewayProcess, tmp_path: Path, seed: int
) -> None:
    kafka, proxy = wire
    chance = random.Random(seed)
    answers = [None, *CODES.values()]

    def choose() -> Fault:
        if chance.random() < 0.7:
            return Fault()
        return Fault(chance.choice(list(Hears)), chance.choice(answers))

    before = shard.log_state().durable_sequence
    with running(CdcProcess(shard, kafka.bootstrap, tmp_path / "log")):
        proxy.choose = choose
        try:
            seen = proxy.produced
            while proxy.produced < seen + 15:
                pay_into(0, shard, 10)
        finally:
            proxy.play()
        assert_shipped(shard, kafka, before)


def values(bootstrap: str, topic: str) -> list[bytes]:
    """Everything that the topic holds now."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "reader", "enable.partition.eof": True})
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        found, ended = [], 0
        while ended < len(partitions):
            message = consumer.poll(10)
            assert message is not None, f"{topic} can be read to its end"
            if message.error():
                ended += 1
            else:
                found.append(message.value() or b"")
        return found
    finally:
        consumer.close()


@pytest.mark.parametrize(
    "answer", list(CODES) if CAMPAIGN else ["out of order", "duplicate", "not authorized"]
)
async def test_the_processors_producer_calls_nothing_delivered_that_was_not_appended(
    wire: tuple[EmbeddedKafka, KafkaProxy], answer: str
) -> None:
    kafka, proxy = wire
    publisher = Publisher(kafka.bootstrap)
    try:
        proxy.play(Fault(Hears.NO, CODES[answer]))
        left = [Outgoing(EVENTS, b"acme/checkout", b"%d of %s" % (n, answer.encode())) for n in range(5)]
        everything = {record.value for record in left}
        async with asyncio.timeout(_BACK_S):
            while left:  # as the relay does: what was not delivered is published again
                first, seen = asyncio.create_task(publisher.publish(left[:1])), proxy.produced
                while proxy.produced == seen and not first.done():
                    await asyncio.sleep(POLL_S)
                delivered = await first, *(await asyncio.gather(*(publisher.publish([r]) for r in left[1:])))
                left = [record for record, (done,) in zip(left, delivered, strict=True) if not done]
    finally:
        publisher.close()
    assert everything <= set(values(kafka.bootstrap, EVENTS))
