"""How far the processors are with payments.changes, and what a removed shard leaves in Kafka.

Blocking and bounded; for a shard that leaves. What intake has committed stands in Postgres.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec  # what confluent_kafka.admin re-exports

from tollgate.errors import OperationalError
from tollgate.topics import CHANGES, INTAKE_GROUP, status_group_prefix

_TIMEOUT_S: Final = 5.0  # each request

Ends = Mapping[int, int]  # partition → the offset after its last record


def ends_of_changes(bootstrap: str) -> Ends:
    """Raises OperationalError when Kafka can't be asked."""
    admin = _admin(bootstrap)
    try:
        partitions = admin.list_topics(CHANGES, timeout=_TIMEOUT_S).topics[CHANGES].partitions
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # the library has no types for it
        wanted = {TopicPartition(CHANGES, partition): latest for partition in partitions}
        listed = admin.list_offsets(wanted, request_timeout=_TIMEOUT_S)
        return {place.partition: future.result(_TIMEOUT_S).offset for place, future in listed.items()}
    except (KafkaException, TimeoutError) as error:
        raise OperationalError(
            f"Kafka at {bootstrap} did not tell the ends of {CHANGES}: {error}."
        ) from error


def not_taken_in(bootstrap: str, ends: Ends) -> int:
    """How many before `ends` intake has not committed. Raises OperationalError when Kafka can't be asked."""
    admin = _admin(bootstrap)
    try:
        asked = admin.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(INTAKE_GROUP)], request_timeout=_TIMEOUT_S
        )
        places = asked[INTAKE_GROUP].result(_TIMEOUT_S).topic_partitions
    except (KafkaException, TimeoutError) as error:
        raise OperationalError(
            f"Kafka at {bootstrap} did not tell how far {INTAKE_GROUP} is: {error}."
        ) from error
    return behind(ends, {place.partition: place.offset for place in places if place.topic == CHANGES})


def behind(ends: Ends, committed: Mapping[int, int]) -> int:
    """Pure. A partition without a commit, which Kafka shows as a negative offset, is read from its start."""
    return sum(max(0, end - max(0, committed.get(partition, 0))) for partition, end in ends.items())


def forget_status_groups(bootstrap: str, shard: int) -> None:
    """The positions of a shard that is gone. Raises OperationalError; what is left expires by itself."""
    admin = _admin(bootstrap)
    prefix = status_group_prefix(shard)
    try:
        listed = admin.list_consumer_groups(request_timeout=_TIMEOUT_S).result(_TIMEOUT_S)
        groups = [group.group_id for group in listed.valid if group.group_id.startswith(prefix)]
        for deleted in (
            admin.delete_consumer_groups(groups, request_timeout=_TIMEOUT_S).values() if groups else ()
        ):
            deleted.result(_TIMEOUT_S)
    except (KafkaException, TimeoutError) as error:
        raise OperationalError(f"The groups {prefix}… could not be deleted from Kafka: {error}.") from error


def _admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 2, "reconnect.backoff.max.ms": 500})
