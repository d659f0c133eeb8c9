"""What is said of payments.changes, and when nothing may be shipped to it."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from cdc.home import PARTITIONS_A_SHARD, Home
from cdc.priming import Priming
from cdc.record import Record
from cdc.topic_watch import Topic, TopicWatch, judge
from tollgate.errors import OperationalError
from tollgate.kafka_topics import Refused, Seen, SeenTopic
from tollgate.topics import CHANGES

SAFE = {"min.insync.replicas": "2", "unclean.leader.election.enable": "false"}


def seen(topic: SeenTopic | Refused, *, embedded: bool = False) -> Seen:
    return Seen(embedded, {CHANGES: topic})


def test_a_topic_as_it_must_be_is_shipped_to() -> None:
    verdict = judge(seen(SeenTopic(64, 3, SAFE | {"max.message.bytes": "50000"})))
    assert verdict == (Topic(64, 50_000), None)
    assert judge(seen(SeenTopic(12, 1, {}), embedded=True)).topic == Topic(12, 1_048_588)


@pytest.mark.parametrize(
    ("topic", "words"),
    [
        (SeenTopic(64, 1, SAFE), "replication factor is 1"),
        (SeenTopic(64, 3, SAFE | {"min.insync.replicas": "1"}), "min.insync.replicas is 1"),
        (SeenTopic(64, 3, SAFE | {"unclean.leader.election.enable": "true"}), "unclean.leader.election"),
        (SeenTopic(65, 3, SAFE), "65 partitions"),
        (Refused("Kafka has no topic payments.changes"), "has no topic"),
    ],
)
def test_a_topic_that_could_lose_a_change_gets_none(topic: SeenTopic | Refused, words: str) -> None:
    verdict = judge(seen(topic))
    assert verdict.topic is None
    assert words in (verdict.trouble or "")
    assert "Operator action" in (verdict.trouble or "")


@pytest.mark.parametrize(
    ("topic", "words"),
    [
        (SeenTopic(64, 3, SAFE, in_sync_min=1), "1 replicas in sync and min.insync.replicas is 2"),
        (SeenTopic(64, 3, SAFE, leaderless=4), "4 of its partitions have no leader"),
    ],
)
def test_brokers_that_are_away_are_said_and_waited_for(topic: SeenTopic, words: str) -> None:
    verdict = judge(seen(topic))
    assert verdict.topic == Topic(64, 1_048_588)
    assert words in (verdict.trouble or "")


async def test_an_outage_after_the_first_look_changes_nothing_but_what_is_said() -> None:
    answers: list[Seen | OperationalError] = [
        OperationalError("Kafka does not answer."),
        seen(SeenTopic(64, 3, SAFE)),
        OperationalError("Kafka does not answer."),
    ]

    def look() -> Seen:
        answer = answers.pop(0)
        if isinstance(answer, OperationalError):
            raise answer
        return answer

    watch = TopicWatch(look)
    said = []
    for _ in range(3):
        await watch.look()
        said.append((watch.topic, watch.trouble))
    topic = Topic(64, 1_048_588)
    assert said == [(None, "Kafka does not answer."), (topic, None), (topic, "Kafka does not answer.")]


async def test_a_topic_made_anew_is_told_of_with_what_to_do() -> None:
    topics = [SeenTopic(64, 3, SAFE, id=name) for name in ("a", "a", "b")]
    watch = TopicWatch(lambda: seen(topics.pop(0)))
    with capture_logs() as said:
        await watch.look()
        await watch.look()
        assert not [line for line in said if line["event"] == "topic_replaced"]
        await watch.look()
    (line,) = [line for line in said if line["event"] == "topic_replaced"]
    assert "tollgate cdc replay" in line["action"]


def record(sequence: int) -> Record:
    return Record(sequence, 1, b"acme/checkout-%04d" % sequence, b"", b"")


def test_a_partition_gets_one_change_of_a_new_producer_until_that_one_has_arrived() -> None:
    records = [record(number) for number in range(100)]
    alone = Priming(Home(0, 1))
    assert alone.admit(records) == 1
    alone.sent(records[:1])
    assert alone.admit(records[1:]) == 0
    alone.delivered(0)
    assert not alone
    many = Priming(Home(1, 12))
    first = many.admit(records)
    assert 1 <= first <= PARTITIONS_A_SHARD, "as many as there are partitions, if no two are alike"
    many.sent(records[:first])
    assert many.admit(records[first:]) == 0
    for partition in range(12):
        assert many or partition > 5
        many.delivered(partition)
    assert many.admit(records[first:]) == 100 - first


def test_a_producer_that_was_told_of_no_partition_has_none_to_prove() -> None:
    assert not Priming(Home(0, 0))
