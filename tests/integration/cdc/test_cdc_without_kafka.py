"""cdc while Kafka is away: nothing is lost, nothing is out of order, and it still ends in time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.kafka import EmbeddedKafka, embedded_kafka
from tests.fixtures.waiting import wait_until
from tests.integration.cdc.bench import (
    CdcProcess,
    assert_complete,
    running,
    shipped,
    tiny_shard,
    wait_acknowledged,
)
from tests.integration.cdc.test_cdc_status import applied, names, publish, snapshot
from tollgate.local.topics import ensure_topics

KEYS = [f"acme/checkout-{number:04}" for number in range(50)]


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    broker = embedded_kafka(tmp_path_factory.mktemp("kafka"))
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()


@pytest.mark.fault
def test_a_topic_that_is_not_there_yet_is_waited_for_and_gets_everything(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    with (
        tiny_shard(tmp_path) as shard,
        running(CdcProcess(shard, kafka.bootstrap, tmp_path / "log")) as cdc,
    ):
        shard.commit(KEYS)
        wait_until(lambda: "no topic payments.changes" in cdc.ready()[1], "it says what is missing")
        assert cdc.metric("tollgate_cdc_topic_unusable") == 1
        assert cdc.metric("tollgate_cdc_produced_total") == 0
        ensure_topics(kafka.bootstrap, embedded=True)
        wait_acknowledged(shard)
        assert_complete(shipped(kafka.bootstrap, shard.incarnation), 50)
        assert cdc.metric("tollgate_cdc_producer_restarts_total") == 0


@pytest.mark.fault
def test_a_killed_kafka_costs_nothing_but_time(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    ensure_topics(kafka.bootstrap, embedded=True)
    settings = {"TOLLGATE_CDC__IN_FLIGHT_RECORDS_MAX": "1500"}
    with (
        tiny_shard(tmp_path) as shard,
        running(CdcProcess(shard, kafka.bootstrap, tmp_path / "log", settings)) as cdc,
    ):
        publish(kafka.bootstrap, 0, [snapshot(0), snapshot(1)])
        wait_until(lambda: applied(shard) == names(range(2)), "statuses come")
        for turn in range(100):
            shard.commit(KEYS)
            if turn == 40:
                wait_until(lambda: shard.acknowledged() >= 1000, "under way")
                kafka.kill()
        wait_until(lambda: cdc.metric("tollgate_cdc_in_flight_records") >= 1450, "the window is full")
        assert cdc.metric("tollgate_cdc_in_flight_records") <= 1500
        before = shard.acknowledged()
        assert before < 5000
        kafka.start()
        publish(kafka.bootstrap, 0, [snapshot(2)])
        wait_acknowledged(shard, timeout_s=30)
        assert_complete(shipped(kafka.bootstrap, shard.incarnation), 5000)
        assert cdc.metric("tollgate_cdc_producer_restarts_total") == 0, "an outage breaks no producer"
        wait_until(lambda: applied(shard) == names(range(3)), "the status feed goes on where it was")


@pytest.mark.fault
def test_it_ends_in_time_with_kafka_down_and_repeats_after_the_next_start(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    with tiny_shard(tmp_path, shard=1) as shard:
        ensure_topics(kafka.bootstrap, embedded=True)
        with running(CdcProcess(shard, kafka.bootstrap, tmp_path / "log")) as cdc:
            shard.commit(KEYS)
            wait_acknowledged(shard)
            kafka.kill()
            shard.commit(KEYS)
            wait_until(lambda: cdc.metric("tollgate_cdc_in_flight_records") == 50, "in flight")
            assert cdc.terminate() == 0
            assert shard.acknowledged() == 50
        kafka.start()
        with running(CdcProcess(shard, kafka.bootstrap, tmp_path / "log")):
            wait_acknowledged(shard)
        assert_complete(shipped(kafka.bootstrap, shard.incarnation), 100)
