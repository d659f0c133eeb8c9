"""The place in payments.status is gone, on a real Kafka: the Ledger is asked for what was missed, then
reading goes on. And what a feed meets besides: an older version, a snapshot that no payment can have."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import cast

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.fixtures.gateway_process import gateway
from tests.fixtures.live_shard import LiveLedger, live_ledger
from tests.fixtures.waiting import wait_until
from tests.integration.cdc.bench import CdcProcess, running, tiny_shard
from tests.integration.cdc.test_cdc_status import applied, names, newest_dead_letter, publish, snapshot
from tests.integration.cdc.tiny_shard import TinyShard
from tollgate.topics import STATUS, status_group_prefix
from tollgate.v1.payment_pb2 import Capture, Payment, Status
from tollgate.v1.shard_pb2 import StatusUpdate

DAY_US = 24 * 60 * 60 * 1_000_000


def delete_before(bootstrap: str, shard: int, offset: int) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
    for future in admin.delete_records([TopicPartition(STATUS, shard, offset)]).values():
        future.result(10)


def know(ledger: LiveLedger, *numbers: int) -> list[str]:
    for number in numbers:
        payment = Payment(merchant="acme", checkout_id=f"missed-{number:04}", version=2)
        ledger.payments["acme", payment.checkout_id] = payment
    return [f"missed-{number:04}" for number in numbers]


def committed(bootstrap: str, shard: TinyShard) -> TopicPartition:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": status_group_prefix(shard.shard) + shard.incarnation.hex(),
            "log_level": 2,
        }
    )
    try:
        (place,) = consumer.committed([TopicPartition(STATUS, shard.shard)], timeout=10)
        return place
    finally:
        consumer.close()


def feed(shard: TinyShard, bootstrap: str, folder: Path, ledger: str) -> CdcProcess:
    return CdcProcess(shard, bootstrap, folder / "log", {"TOLLGATE_LEDGER__TARGETS": ledger})


@pytest.mark.fault
def test_snapshots_deleted_while_it_was_away_come_from_the_ledger_and_reading_goes_on(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    with tiny_shard(tmp_path, shard=40) as shard, live_ledger() as (address, ledger):
        cdc = feed(shard, kafka_bootstrap, tmp_path, address)
        known_us = time.time_ns() // 1000
        update = StatusUpdate(
            payment=Payment(merchant="acme", checkout_id="checkout-0000", version=1), published_at_us=known_us
        )
        with running(cdc):
            publish(kafka_bootstrap, 40, [update.SerializeToString()])
            wait_until(lambda: len(shard.applied) == 1, "the first applied")
            assert cdc.terminate() == 0
        assert ledger.asked == []
        assert committed(kafka_bootstrap, shard).offset == 1

        publish(kafka_bootstrap, 40, [snapshot(number) for number in range(1, 10)])
        delete_before(kafka_bootstrap, 40, 7)
        missed = know(ledger, 1, 2, 3)
        ledger.down = True
        with running(cdc):
            wait_until(lambda: len(ledger.asked) > 1, "the Ledger is asked again while it is down")
            assert applied(shard) == ["checkout-0000"]
            ledger.down = False
            wait_until(lambda: len(shard.applied) == 7, "all applied")
            assert cdc.metric("tollgate_cdc_status_refreshed_total") == 3
            assert cdc.terminate() == 0
        assert applied(shard)[1:] == [*missed, *names(range(7, 10))]
        assert {(one.shard, one.changed_since_us) for one in ledger.asked} == {(40, known_us - DAY_US)}
        assert committed(kafka_bootstrap, shard).offset == 10

        asked = len(ledger.asked)
        publish(kafka_bootstrap, 40, [snapshot(10)])
        with running(cdc):
            wait_until(lambda: len(shard.applied) == 8, "the position is kept")
        assert len(ledger.asked) == asked


@pytest.mark.fault
def test_snapshots_deleted_under_a_running_feed_come_from_the_ledger(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    with tiny_shard(tmp_path, shard=41) as shard, live_ledger() as (address, ledger):
        missed = know(ledger, 1)
        with running(feed(shard, kafka_bootstrap, tmp_path, address)) as cdc:
            publish(kafka_bootstrap, 41, [snapshot(0)])
            wait_until(lambda: committed(kafka_bootstrap, shard).offset == 1, "the first applied")
            assert cdc.process is not None
            cdc.process.send_signal(signal.SIGSTOP)
            publish(
                kafka_bootstrap, 41, [snapshot(1)]
            )  # the answer to a fetch that waits at the broker, if any
            publish(kafka_bootstrap, 41, [snapshot(number) for number in range(2, 6)])
            delete_before(kafka_bootstrap, 41, 5)
            cdc.process.send_signal(signal.SIGCONT)
            wait_until(lambda: "checkout-0005" in applied(shard), "the last applied")
            assert cdc.said("status_position_lost")
        assert [one for one in applied(shard) if one != "checkout-0001"] == [
            "checkout-0000",
            *missed,
            "checkout-0005",
        ]


@pytest.mark.fault
def test_a_place_beyond_the_end_is_that_of_another_topic(kafka_bootstrap: str, tmp_path: Path) -> None:
    with tiny_shard(tmp_path, shard=42) as shard, live_ledger() as (address, ledger):
        missed = know(ledger, 1)
        publish(kafka_bootstrap, 42, [snapshot(0)])
        group = Consumer(
            {
                "bootstrap.servers": kafka_bootstrap,
                "group.id": status_group_prefix(42) + shard.incarnation.hex(),
                "log_level": 2,
            }
        )
        group.commit(offsets=[TopicPartition(STATUS, 42, 1_000, "77")], asynchronous=False)
        group.close()
        with running(feed(shard, kafka_bootstrap, tmp_path, address)) as cdc:
            wait_until(lambda: len(shard.applied) == 2, "both applied")
            assert cdc.said("status_position_lost")
        assert applied(shard) == [*missed, *names(range(1))]


@pytest.mark.fault
def test_a_new_store_whose_earliest_snapshots_are_gone_asks_for_all_there_are(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    publish(kafka_bootstrap, 43, [snapshot(number) for number in range(4)])
    delete_before(kafka_bootstrap, 43, 4)
    with tiny_shard(tmp_path, shard=43) as shard, live_ledger() as (address, ledger):
        missed = know(ledger, 1, 2)
        cdc = feed(shard, kafka_bootstrap, tmp_path, address)
        with running(cdc):
            wait_until(lambda: applied(shard) == missed, "refreshed")
            wait_until(lambda: committed(kafka_bootstrap, shard).offset == 4, "and said to be done")
        assert {one.changed_since_us for one in ledger.asked} == {0}
        with running(feed(shard, kafka_bootstrap, tmp_path, "")) as without_ledger:
            publish(kafka_bootstrap, 43, [snapshot(4), snapshot(5)])
            wait_until(lambda: len(shard.applied) == 4, "going on")
            without_ledger.kill()
            delete_before(kafka_bootstrap, 43, 6)
            publish(kafka_bootstrap, 43, [snapshot(6)])
            without_ledger.start()
            wait_until(lambda: "checkout-0006" in applied(shard), "going on without a Ledger")


@pytest.mark.fault
def test_a_real_shard_ignores_older_versions_and_refuses_alone_what_no_payment_can_be(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    def update(checkout_id: str, version: int, status: Status.ValueType, merchant: str = "acme") -> bytes:
        payment = Payment(merchant=merchant, checkout_id=checkout_id, version=version, status=status)
        payment.capture = Capture.CAPTURE_AUTOMATIC
        return StatusUpdate(payment=payment).SerializeToString()

    with gateway(tmp_path, 44) as shard, running(CdcProcess(shard, kafka_bootstrap, tmp_path / "log")) as cdc:
        shard.pay("checkout-0001")
        shard.pay("checkout-0002")
        impossible = update("checkout-0002", 1, Status.STATUS_SUCCEEDED, merchant="NO SUCH MERCHANT")
        publish(
            kafka_bootstrap,
            44,
            [
                update("checkout-0001", 3, Status.STATUS_SUCCEEDED),
                update("checkout-0001", 2, Status.STATUS_PROCESSING),
                impossible,
                update("checkout-0001", 3, Status.STATUS_FAILED),
                update("checkout-0002", 1, Status.STATUS_FAILED),
            ],
        )
        wait_until(lambda: shard.status_of("checkout-0002") == "failed", "what follows is applied")
        assert shard.status_of("checkout-0001") == "succeeded"
        wait_until(lambda: cdc.metric("tollgate_cdc_dead_letters_total") == 1, "buried")
        assert cdc.metric("tollgate_cdc_status_applied_total") == 2
        assert cdc.metric("tollgate_cdc_status_ignored_total") == 2
        letter = newest_dead_letter(kafka_bootstrap)
        assert letter.value() == impossible
        headers = dict(cast("list[tuple[str, bytes]]", letter.headers()))
        assert headers["origin_partition"] == b"44"
        assert b"No payment can have" in headers["error"]
