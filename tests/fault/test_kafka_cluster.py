"""A cluster of three nodes that loses one, then two, under payments; and one that must not be trusted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without __all__
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from tests.fixtures.gateway_process import gateway
from tests.fixtures.kafka_cluster import NODES, KafkaCluster, kafka_cluster
from tests.fixtures.kafka_pair import pair, paying
from tests.fixtures.waiting import wait_until
from tests.integration.cdc.bench import CdcProcess, running
from tollgate.local.topics import ensure_topics, has_one_broker
from tollgate.topics import CHANGES

pytestmark = [
    pytest.mark.fault,
    pytest.mark.timeout(600),
    pytest.mark.skipif("KAFKA_FAULT_SEEDS" not in os.environ, reason="three JVMs at once: make fault-kafka"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    with kafka_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        assert not has_one_broker(cluster.bootstrap, timeout_s=20)
        ensure_topics(cluster.bootstrap, embedded=False, timeout_s=60)
        yield cluster


def test_a_dead_leader_is_replaced_and_too_few_replicas_are_waited_for(
    cluster: KafkaCluster, tmp_path: Path
) -> None:
    with pair(tmp_path, cluster.bootstrap) as both, paying(both.shard, "cluster") as payers:
        payers.wait_for_more()
        leader = cluster.leaders()[0]
        cluster.kill(leader)
        payers.wait_for_more()
        wait_until(lambda: leader not in cluster.leaders().values(), "other nodes lead", 30)
        both.wait_for_more_shipped()  # two of three are enough
        other = next(node for node in NODES if node != leader)
        cluster.kill(other)
        both.wait_unready("Kafka has confirmed nothing for")
        stuck = both.shard.log_state()
        payers.wait_for_more()
        assert both.shard.log_state().acknowledged_sequence == stuck.acknowledged_sequence
        cluster.start(other)
        both.wait_for_more_shipped()
        cluster.start(leader)
        payers.ended.set()
        both.assert_everything_arrived()
        assert set(payers.answers.values()) == {202}
        assert both.cdc.metric("tollgate_cdc_producer_restarts_total") == 0


def test_a_cluster_that_could_lose_what_it_confirmed_gets_nothing_until_it_is_mended(
    cluster: KafkaCluster, tmp_path: Path
) -> None:
    with gateway(tmp_path, 27) as shard:
        shard.pay("checkout-0001")
        set_config(cluster, "min.insync.replicas", "1")
        set_config(cluster, "unclean.leader.election.enable", "true")
        with running(CdcProcess(shard, cluster.bootstrap, tmp_path / "cdc.log")) as cdc:
            wait_until(lambda: "min.insync.replicas is 1" in cdc.ready()[1], "it says so", 30)
            assert "unclean.leader.election.enable is true" in cdc.ready()[1]
            assert cdc.metric("tollgate_cdc_topic_unusable") == 1
            assert cdc.metric("tollgate_cdc_produced_total") == 0
            set_config(cluster, "min.insync.replicas", "2")
            set_config(cluster, "unclean.leader.election.enable", "false")
            wait_until(lambda: shard.log_state().acknowledged_sequence == 1, "it goes on by itself", 30)


def set_config(cluster: KafkaCluster, name: str, value: str) -> None:
    """Of payments.changes."""
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, CHANGES, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(20)
