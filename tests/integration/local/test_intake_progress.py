"""What a leaving shard waits for in Kafka, and what it leaves there."""

from __future__ import annotations

import pytest
from confluent_kafka import Consumer, TopicPartition

from tests.fixtures.waiting import wait_until
from tollgate.errors import OperationalError
from tollgate.local import intake_progress
from tollgate.local.intake_progress import behind, ends_of_changes, forget_status_group, not_taken_in
from tollgate.topics import STATUS, status_group_prefix


@pytest.mark.parametrize(
    ("ends", "committed", "left"),
    [
        ({0: 5, 1: 7}, {0: 5, 1: 7}, 0),
        ({0: 5, 1: 7}, {0: 3, 1: 9}, 2),
        ({0: 5, 1: 7}, {0: 5}, 7),
        ({0: 5, 1: 7}, {0: -1001, 1: 7}, 5),
        ({0: 0, 1: 0}, {}, 0),
    ],
)
def test_what_is_behind_is_what_intake_has_not_committed(
    ends: dict[int, int], committed: dict[int, int], left: int
) -> None:
    assert behind(ends, committed) == left


def test_every_partition_is_waited_for(kafka_bootstrap: str) -> None:
    wait_until(lambda: is_told(kafka_bootstrap), "a topic that was just made has its leaders")
    ends = ends_of_changes(kafka_bootstrap)
    assert sorted(ends) == list(range(12))
    assert not_taken_in(kafka_bootstrap, ends) <= sum(ends.values())
    assert not_taken_in(kafka_bootstrap, {0: 1 << 40}) > 1 << 39


def is_told(bootstrap: str) -> bool:
    try:
        return not_taken_in(bootstrap, ends_of_changes(bootstrap)) >= 0
    except OperationalError:
        return False


def test_a_topic_that_is_not_known_yet_is_no_empty_one(
    kafka_bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_progress, "CHANGES", "payments.nobody-made-it")
    with pytest.raises(OperationalError, match="does not know"):
        ends_of_changes(kafka_bootstrap)


def test_a_kafka_that_is_away_is_an_error_and_not_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_progress, "_TIMEOUT_S", 0.2)
    with pytest.raises(OperationalError, match="did not tell"):
        ends_of_changes("127.0.0.1:1")
    with pytest.raises(OperationalError, match="did not tell"):
        not_taken_in("127.0.0.1:1", {0: 1})


def test_the_positions_of_a_removed_shard_are_deleted(kafka_bootstrap: str) -> None:
    group = status_group_prefix(6) + "feed"
    consumer = Consumer({"bootstrap.servers": kafka_bootstrap, "group.id": group})
    consumer.commit(offsets=[TopicPartition(STATUS, 6, 1)], asynchronous=False)
    forget_status_group(kafka_bootstrap, group)
    assert consumer.committed([TopicPartition(STATUS, 6)], timeout=10)[0].offset < 0
    consumer.close()
    with pytest.raises(OperationalError, match="could not be deleted"):
        forget_status_group(kafka_bootstrap, group)
