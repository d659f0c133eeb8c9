"""Only what was consumed and is old leaves the topic of changes."""

from __future__ import annotations

import time
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # re-exported
from hypothesis import given
from hypothesis import strategies as st

from processor.kafka.retention import deletable, forget_changes
from tollgate.errors import OperationalError

OLD_MS, CUT_MS, YOUNG_MS = 1_000_000, 2_000_000, 3_000_000
offsets = st.integers(-1, 50)


@given(st.dictionaries(st.integers(0, 3), offsets), st.dictionaries(st.integers(0, 3), offsets))
def test_nothing_unconsumed_and_nothing_young_may_go(
    committed: dict[int, int], younger_from: dict[int, int]
) -> None:
    for partition, before in deletable(committed, younger_from).items():
        assert 0 < before <= committed[partition]
        assert younger_from.get(partition, 0) < 0 or before <= younger_from[partition]


class Topic:
    """One partition of its own, with three old records and two young ones."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.name = self.group = f"retention-{uuid4().hex}"
        topic = NewTopic(self.name, num_partitions=1, replication_factor=1)
        admin = AdminClient({"bootstrap.servers": bootstrap})
        for future in admin.create_topics([topic]).values():
            future.result(10)
        producer = Producer({"bootstrap.servers": bootstrap})
        for at_ms in (OLD_MS, OLD_MS, OLD_MS, YOUNG_MS, YOUNG_MS):
            producer.produce(self.name, value=b"change", timestamp=at_ms)
        assert producer.flush(10) == 0

    def commit(self, offset: int) -> None:
        consumer = self._consumer()
        consumer.commit(offsets=[TopicPartition(self.name, 0, offset)], asynchronous=False)
        consumer.close()

    def first(self) -> int:
        consumer = self._consumer()
        low, _ = consumer.get_watermark_offsets(TopicPartition(self.name, 0), timeout=10)
        consumer.close()
        return int(low)

    def forget(self) -> int:
        """A broker that has just started may still be loading its groups: the next call goes on."""
        deadline = time.monotonic() + 20
        while True:
            try:
                return forget_changes(self.bootstrap, CUT_MS, self.name, self.group)
            except OperationalError:
                if time.monotonic() > deadline:
                    raise

    def _consumer(self) -> Consumer:
        return Consumer({"bootstrap.servers": self.bootstrap, "group.id": self.group})


def test_consumed_old_changes_go_and_no_others(kafka_bootstrap: str) -> None:
    topic = Topic(kafka_bootstrap)
    assert (topic.forget(), topic.first()) == (0, 0), "nothing was consumed yet"
    topic.commit(2)
    assert (topic.forget(), topic.first()) == (1, 2), "the third is old and was not consumed"
    topic.commit(5)
    assert (topic.forget(), topic.first()) == (1, 3), "the fourth was consumed and is young"


def test_a_kafka_that_is_away_is_said_so() -> None:
    with pytest.raises(OperationalError, match="tried again"):
        forget_changes("127.0.0.1:1", CUT_MS)
