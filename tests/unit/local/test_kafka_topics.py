"""What makes an existing topic unusable: said before anything starts, and nothing is changed."""

from __future__ import annotations

import pytest

from tollgate.kafka_topics import Refused, Seen, SeenTopic, problems, unsafe
from tollgate.topics import CHANGES, STATUS, topic_specs

EMBEDDED = {spec.name: spec for spec in topic_specs(embedded=True)}
CLUSTER = {spec.name: spec for spec in topic_specs(embedded=False)}
GOOD = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "min.insync.replicas": "2",
    "unclean.leader.election.enable": "false",
}


def test_a_topic_as_it_was_made_is_right() -> None:
    assert problems(EMBEDDED[CHANGES], SeenTopic(12, 1, GOOD), embedded=True) == []
    assert problems(CLUSTER[CHANGES], SeenTopic(64, 3, GOOD), embedded=False) == []


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (SeenTopic(63, 3, GOOD), "63 partitions and must have 64"),
        (SeenTopic(64, 2, GOOD), "replication factor is 2"),
        (SeenTopic(64, 3, GOOD | {"min.insync.replicas": "1"}), "min.insync.replicas is 1"),
        (SeenTopic(64, 3, GOOD | {"unclean.leader.election.enable": "true"}), "unclean.leader.election"),
        (SeenTopic(64, 3, GOOD | {"retention.ms": "604800000"}), "what is unread would expire"),
        (SeenTopic(64, 3, GOOD | {"cleanup.policy": "compact"}), "cleanup.policy is compact"),
    ],
)
def test_a_topic_that_could_lose_something_is_named(seen: SeenTopic, words: str) -> None:
    (problem,) = problems(CLUSTER[CHANGES], seen, embedded=False)
    assert words in problem


def test_every_topic_says_how_long_it_keeps_what() -> None:
    for spec in [*EMBEDDED.values(), *CLUSTER.values()]:
        assert "retention.ms" in spec.config, f"{spec.name} would keep what the broker's default says"


def test_everything_wrong_with_any_topic_is_said_by_its_name() -> None:
    seen = Seen(
        embedded=False, topics={CHANGES: SeenTopic(64, 1, GOOD), STATUS: Refused("Kafka has no topic")}
    )
    assert unsafe(seen) == [
        "topic payments.changes: its replication factor is 1 and must be at least 3",
        "Kafka has no topic",
    ]
    assert unsafe(Seen(embedded=True, topics={CHANGES: SeenTopic(12, 1, GOOD)})) == []
