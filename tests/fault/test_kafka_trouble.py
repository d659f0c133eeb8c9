"""A Kafka that is away, hangs, refuses, or has lost the topic, beside a real shard and a real tailer.

In every case: what was answered with 202 arrives, in order; the trouble shows in readiness, metrics and the
log with what an operator does; it goes on by itself when the trouble is over.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without __all__
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)

from tests.fixtures.gateway_process import GatewayProcess, gateway
from tests.fixtures.kafka import EmbeddedKafka, embedded_kafka
from tests.fixtures.kafka_pair import BACK_S, Pair, pair, paying
from tests.fixtures.waiting import wait_until
from tests.integration.cdc.bench import CdcProcess, running, shipped
from tollgate.local.topics import ensure_topics
from tollgate.topics import CHANGES
from tollgate.v1.change_pb2 import Change
from tollgate.v1.payment_pb2 import Status
from tollgate.v1.shard_pb2 import ApplyStatusRequest, ReadChangesRequest, StatusUpdate
from tollgate.v1.shard_pb2_grpc import ShardStub

pytestmark = [pytest.mark.fault, pytest.mark.timeout(int(os.environ.get("KAFKA_FAULT_TIMEOUT_S", "300")))]

CAMPAIGN: Final = int(os.environ.get("KAFKA_FAULT_SEEDS", "0"))
DOWN_S: Final = float(os.environ.get("KAFKA_FAULT_DOWN_S", "1"))
_SHARD: Final = 25
in_the_campaign = pytest.mark.skipif(not CAMPAIGN, reason="takes long: make fault-kafka")
# 40 kB a payment, within the 64 KiB of a body.
LARGE: Final[dict[str, Any]] = {"metadata": {f"{number:02}": "😀" * 490 for number in range(20)}}


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """Whoever is not named may do everything, and everybody is nobody."""
    broker = embedded_kafka(
        tmp_path_factory.mktemp("kafka"),
        authorizer_class_name="org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        allow_everyone_if_no_acl_found="true",
    )
    broker.start()
    try:
        ensure_topics(broker.bootstrap, embedded=True)
        yield broker
    finally:
        broker.kill()


@in_the_campaign
def test_an_outage_costs_nothing_but_time_and_payments_go_on_before_in_and_after_it(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    with pair(tmp_path, kafka.bootstrap) as both, paying(both.shard, "outage") as payers:
        payers.wait_for_more(20)
        kafka.kill()
        both.wait_unready("Kafka has confirmed nothing for")
        before, seen = both.resident_mib(), len(payers.answers)
        over = threading.Event()
        threading.Timer(DOWN_S, over.set).start()
        wait_until(over.is_set, f"Kafka was away for {DOWN_S:g} s", DOWN_S + BACK_S)
        assert len(payers.answers) > seen + 20, "payments in it"
        assert both.cdc.metric("tollgate_cdc_lag_records") > 20
        assert both.resident_mib() < before + 64, "the tailer holds no more than its window"
        kafka.start()
        wait_until(lambda: both.cdc.ready() == (True, ""), "it goes on by itself", BACK_S)
        payers.wait_for_more(20)
        payers.ended.set()
        both.assert_everything_arrived()
        assert set(payers.answers.values()) == {202}
        in_kafka = {
            Change.FromString(record.value).acceptance.checkout_id
            for record in shipped(kafka.bootstrap, both.shard.log_state().incarnation)
        }
        assert payers.accepted() <= in_kafka
        assert both.cdc.metric("tollgate_cdc_producer_restarts_total") == 0, "an outage breaks no producer"


@in_the_campaign
def test_a_bound_on_what_waits_refuses_new_payments_alone_and_ends_by_itself(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    with pair(tmp_path, kafka.bootstrap, TOLLGATE_SHARD__BACKLOG_BYTES_MAX="1MiB") as both:
        shard = both.shard
        kafka.kill()
        try:
            statuses = {}
            for number in range(1_000):
                statuses[f"large-{number:04}"] = status = shard.post(f"large-{number:04}", **LARGE)[0]
                if status != 202:
                    break
            assert status == 503
            accepted = [checkout_id for checkout_id, status in statuses.items() if status == 202]
            assert len(accepted) > 10
            last = shard.log_state()
            assert b"wait to be shipped to Kafka" in shard.post("another-one")[1]
            assert shard.get(accepted[-1]) == 200
            assert shard.post(accepted[-1], **LARGE)[0] == 200, "a replay is answered"
            assert shard.post(accepted[-1])[0] == 422
            settle(shard, accepted[0])
            assert shard.status_of(accepted[0]) == "succeeded", "statuses are taken"
            assert shard.log_state() == last, "nothing refused was stored"
        finally:
            kafka.start()
        wait_until(lambda: shard.post("after-it")[0] in (200, 202), "taken again", BACK_S)
        assert shard.post("another-one")[0] == 202
        both.assert_everything_arrived()


def settle(shard: GatewayProcess, checkout_id: str) -> None:
    """As the status feed does."""
    with grpc.insecure_channel(shard.grpc) as channel:
        stub = ShardStub(channel)
        changes = stub.ReadChanges(ReadChangesRequest(from_sequence=1, limit=1_000), timeout=10).changes
        payment = next(
            change.acceptance
            for change in map(Change.FromString, changes)
            if change.acceptance.checkout_id == checkout_id
        )
        payment.version, payment.status = 1, Status.STATUS_SUCCEEDED
        stub.ApplyStatus(ApplyStatusRequest(updates=[StatusUpdate(payment=payment)]), timeout=10)


@in_the_campaign
@pytest.mark.parametrize("seed", range(1, 1 + CAMPAIGN))
def test_a_broker_that_hangs_and_dies_again_and_again_loses_nothing(
    kafka: EmbeddedKafka, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    with pair(tmp_path, kafka.bootstrap) as both, paying(both.shard, f"seed-{seed}") as payers:
        for blow in chance.sample(["freeze", "kill", "stop"], 3):
            payers.wait_for_more()
            if blow == "freeze":
                kafka.freeze()
                both.wait_unready("Kafka has confirmed nothing for")
                kafka.thaw()
            elif blow == "kill":
                kafka.kill()
                kafka.start()
            else:
                kafka.stop()
                kafka.start()
        payers.ended.set()
        both.assert_everything_arrived()
        assert set(payers.answers.values()) == {202}, f"seed {seed}"


@in_the_campaign
def test_a_change_that_is_too_large_halts_there_until_the_topic_takes_it(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    with pair(tmp_path, kafka.bootstrap) as both:
        set_config(kafka, "max.message.bytes", "20000")
        try:
            both.pay(30)
            both.wait_shipped()
            both.pay(**LARGE)
            stuck = both.shard.log_state().durable_sequence
            both.pay(50)
            both.wait_unready(f"Kafka does not take change {stuck}:")
            wait_until(lambda: both.cdc.metric("tollgate_cdc_stuck_at_sequence") == stuck, "which one")
            assert "raise max.message.bytes" in both.cdc.ready()[1]
            assert both.cdc.said("Message size too large")
            restarts = both.cdc.metric("tollgate_cdc_producer_restarts_total")
            wait_until(
                lambda: both.cdc.metric("tollgate_cdc_producer_restarts_total") >= restarts + 3, "tries"
            )
            assert both.shard.log_state().acknowledged_sequence == stuck - 1, "never passed over"
            assert both.cdc.metric("tollgate_cdc_produced_total") < stuck + 100, "it does not ship repeats"
        finally:
            set_config(kafka, "max.message.bytes", None)
        both.assert_everything_arrived()


@in_the_campaign
def test_small_batches_are_made_for_a_topic_that_takes_no_large_ones(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    """Every change fits; a batch of them as the client makes it by itself would not."""
    with gateway(tmp_path, _SHARD) as shard:
        set_config(kafka, "max.message.bytes", "50000")
        try:
            for number in range(60):
                shard.pay(f"checkout-{number:06}", metadata={"text": "x" * 450})
            with running(CdcProcess(shard, kafka.bootstrap, tmp_path / "cdc.log")) as cdc:
                both = Pair(shard, cdc, kafka.bootstrap)
                both.assert_everything_arrived()
                assert cdc.metric("tollgate_cdc_producer_restarts_total") == 0
        finally:
            set_config(kafka, "max.message.bytes", None)


@in_the_campaign
def test_a_topic_that_may_not_be_written_to_is_waited_for(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    denied = AclBinding(
        ResourceType.TOPIC,
        CHANGES,
        ResourcePatternType.LITERAL,
        "User:ANONYMOUS",
        "*",
        AclOperation.WRITE,
        AclPermissionType.DENY,
    )
    # Once somebody is named, everything that is not named is denied.
    allowed = AclBinding(
        ResourceType.TOPIC,
        CHANGES,
        ResourcePatternType.LITERAL,
        "User:ANONYMOUS",
        "*",
        AclOperation.ALL,
        AclPermissionType.ALLOW,
    )
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    with pair(tmp_path, kafka.bootstrap) as both:
        done(admin.create_acls([allowed, denied]))
        try:
            both.pay(20)
            both.wait_unready("allow Write on payments.changes")
            assert both.shard.log_state().acknowledged_sequence == 1
        finally:
            done(admin.delete_acls([filter_of(denied), filter_of(allowed)]))
        both.assert_everything_arrived()


def filter_of(binding: AclBinding) -> AclBindingFilter:
    return AclBindingFilter(
        binding.restype,
        binding.name,
        binding.resource_pattern_type,
        binding.principal,
        binding.host,
        binding.operation,
        binding.permission_type,
    )


@in_the_campaign
def test_a_topic_that_is_deleted_and_made_anew_gets_what_follows_and_the_loss_is_told(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    with pair(tmp_path, kafka.bootstrap) as both:
        both.pay(20)
        both.wait_shipped()
        acknowledged = both.shard.log_state().acknowledged_sequence
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
        done(admin.delete_topics([CHANGES]))
        both.pay(20)
        both.wait_unready("no topic payments.changes")
        assert both.shard.log_state().acknowledged_sequence == acknowledged, "the cursor stays"
        ensure_topics(kafka.bootstrap, embedded=True)
        both.wait_shipped()
        state = both.shard.log_state()
        there = {record.sequence for record in shipped(kafka.bootstrap, state.incarnation)}
        assert there == set(range(acknowledged + 1, state.durable_sequence + 1))
        wait_until(lambda: both.cdc.metric("tollgate_cdc_topic_replaced_total") == 1, "it is noticed", BACK_S)
        assert both.cdc.said("tollgate cdc replay")


def set_config(kafka: EmbeddedKafka, name: str, value: str | None) -> None:
    """Of payments.changes; None is the default again."""
    operation = AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET
    entry = ConfigEntry(name, value, incremental_operation=operation)
    resource = ConfigResource(ResourceType.TOPIC, CHANGES, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})  # lives until its futures are resolved
    done(admin.incremental_alter_configs([resource]))


def done(futures: Mapping[Any, Future[Any]]) -> None:
    for future in futures.values():
        future.result(20)
