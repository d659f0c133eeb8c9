"""How far the processors are with payments.changes, and what a removed shard leaves in Kafka.

Blocking and bounded; for a shard that leaves. What intake has committed stands in Postgres.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from tollgate.errors import OperationalError
from tollgate.kafka_group import outside_of
from tollgate.topics import CHANGES, INTAKE_GROUP

_TIMEOUT_S: Final = 5.0  # each request

Ends = Mapping[int, int]  # partition → the offset after its last record


def ends_of_changes(bootstrap: str) -> Ends:
    """Of every partition there is. Raises OperationalError when Kafka can't be asked."""
    with _asking(bootstrap, f"where {CHANGES} ends") as consumer:
        partitions = consumer.list_topics(CHANGES, timeout=_TIMEOUT_S).topics[CHANGES].partitions
        if not partitions:  # a broker that has just started knows its topics a moment later
            raise OperationalError(f"Kafka at {bootstrap} does not know {CHANGES} yet.")
        return {partition: _end(consumer, partition) for partition in partitions}


def not_taken_in(bootstrap: str, ends: Ends) -> int:
    """How many before `ends` intake has not committed. Raises OperationalError when Kafka can't be asked."""
    with _asking(bootstrap, f"how far {INTAKE_GROUP} is") as consumer:
        asked = [TopicPartition(CHANGES, partition) for partition in ends]
        places = consumer.committed(asked, timeout=_TIMEOUT_S)
    return behind(ends, {place.partition: place.offset for place in places})


def behind(ends: Ends, committed: Mapping[int, int]) -> int:
    """Pure. A partition without a commit, which Kafka shows as a negative offset, is read from its start."""
    return sum(max(0, end - max(0, committed.get(partition, 0))) for partition, end in ends.items())


def forget_status_group(bootstrap: str, group: str) -> None:
    """The positions of a status feed that is gone. Raises OperationalError; they expire by themselves too."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
    try:
        admin.delete_consumer_groups([group], request_timeout=_TIMEOUT_S)[group].result(_TIMEOUT_S)
    except (KafkaException, TimeoutError) as error:
        raise OperationalError(f"The group {group} could not be deleted from Kafka: {error}.") from error


def _end(consumer: Consumer, partition: int) -> int:
    """Raises KafkaException."""
    found = consumer.get_watermark_offsets(TopicPartition(CHANGES, partition), timeout=_TIMEOUT_S)
    if found is None:
        raise TimeoutError(f"partition {partition} did not answer")
    return found[1]


@contextmanager
def _asking(bootstrap: str, what: str) -> Iterator[Consumer]:
    try:
        with outside_of(INTAKE_GROUP, bootstrap) as consumer:
            yield consumer
    except (KafkaException, TimeoutError) as error:
        raise OperationalError(f"Kafka at {bootstrap} did not tell {what}: {error}.") from error
