"""Statuses from a real payments.status, through a real cdc process, into a shard."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from tests.fixtures.waiting import wait_until
from tests.integration.cdc.bench import CdcProcess, running, tiny_shard
from tests.integration.cdc.tiny_shard import TinyShard
from tollgate.topics import DLQ, STATUS
from tollgate.v1.payment_pb2 import Payment
from tollgate.v1.shard_pb2 import StatusUpdate


def snapshot(number: int, version: int = 1) -> bytes:
    payment = Payment(merchant="acme", checkout_id=f"checkout-{number:04}", version=version)
    return StatusUpdate(payment=payment).SerializeToString()


def publish(bootstrap: str, shard: int, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 2})
    for value in values:
        producer.produce(STATUS, key=b"key", value=value, partition=shard)
    assert producer.flush(20) == 0


def applied(shard: TinyShard) -> list[str]:
    return [update.payment.checkout_id for update in shard.applied]


def names(numbers: range) -> list[str]:
    return [f"checkout-{number:04}" for number in numbers]


def test_snapshots_are_applied_in_order_and_in_batches(kafka_bootstrap: str, tmp_path: Path) -> None:
    with tiny_shard(tmp_path, shard=11) as shard:
        publish(kafka_bootstrap, 11, [snapshot(number) for number in range(300)])
        with running(CdcProcess(shard, kafka_bootstrap, tmp_path / "log")) as cdc:
            wait_until(lambda: len(shard.applied) >= 300, "applied")
            assert cdc.terminate() == 0
        assert applied(shard) == names(range(300))
        assert shard.largest_apply > 1

        publish(kafka_bootstrap, 11, [snapshot(300)])
        with running(CdcProcess(shard, kafka_bootstrap, tmp_path / "log")):
            wait_until(lambda: len(shard.applied) >= 301, "the position is kept")
        assert applied(shard) == names(range(301))


@pytest.mark.fault
def test_a_poison_record_goes_to_the_dlq_and_the_feed_goes_on(kafka_bootstrap: str, tmp_path: Path) -> None:
    poison = b"\xff\xff\xff not protobuf"
    with (
        tiny_shard(tmp_path, shard=12) as shard,
        running(CdcProcess(shard, kafka_bootstrap, tmp_path / "log")) as cdc,
    ):
        publish(kafka_bootstrap, 12, [snapshot(0), poison, snapshot(1)])
        wait_until(lambda: applied(shard) == names(range(2)), "what is around the poison applied")
        wait_until(lambda: cdc.metric("tollgate_cdc_dead_letters_total") == 1, "buried")
        letter = newest_dead_letter(kafka_bootstrap)
        assert letter.value() == poison
        assert letter.key() == b"key"
        assert dict(letter.headers() or []) == {
            "error": b"not a StatusUpdate",
            "attempts": b"1",
            "origin_topic": STATUS.encode(),
            "origin_partition": b"12",
            "origin_offset": b"1",
        }
        assert cdc.said("Operator action")


def newest_dead_letter(bootstrap: str) -> Message:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "reader", "log_level": 2})
    try:
        _low, high = consumer.get_watermark_offsets(TopicPartition(DLQ, 0), timeout=10)
        consumer.assign([TopicPartition(DLQ, 0, high - 1)])
        message = consumer.poll(10)
        assert message is not None
        return message
    finally:
        consumer.close()


@pytest.mark.fault
def test_snapshots_wait_for_a_shard_that_is_down(kafka_bootstrap: str, tmp_path: Path) -> None:
    with (
        tiny_shard(tmp_path, shard=13) as shard,
        running(CdcProcess(shard, kafka_bootstrap, tmp_path / "log")) as cdc,
    ):
        publish(kafka_bootstrap, 13, [snapshot(0)])
        wait_until(lambda: len(shard.applied) == 1, "the first applied")
        shard.stop_serving()
        publish(kafka_bootstrap, 13, [snapshot(number) for number in range(1, 5)])
        wait_until(lambda: cdc.metric("tollgate_cdc_status_waiting") > 0, "waiting for the shard")
        cdc.kill()
        shard.serve()
        cdc.start()
        wait_until(lambda: names(range(1, 5)) == applied(shard)[-4:], "the rest applied")


def test_a_replaced_store_is_fed_from_the_earliest_snapshot(kafka_bootstrap: str, tmp_path: Path) -> None:
    publish(kafka_bootstrap, 14, [snapshot(number) for number in range(10)])
    with (
        tiny_shard(tmp_path, shard=14) as shard,
        running(CdcProcess(shard, kafka_bootstrap, tmp_path / "log")),
    ):
        wait_until(lambda: len(shard.applied) == 10, "applied to the first store")
        shard.close()
        shard.data_dir.rename(tmp_path / "away")
        shard.data_dir.mkdir()
        shard.open()
        wait_until(lambda: applied(shard) == names(range(10)) * 2, "and to the one in its place")
