"""What was taken in long ago leaves payments.changes: the topic itself never expires anything.

A change may go when intake has committed its offset and its record is older than the time kept: consumed
ones stay long enough to be read again, unconsumed ones for ever. Any number of processors may do it; Kafka
only ever moves the start of a partition forward.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from processor.kafka.consumer import GROUP
from tollgate.errors import OperationalError
from tollgate.kafka_group import outside_of
from tollgate.topics import CHANGES

_TIMEOUT_S: Final = 5.0  # each request; a stop waits for the one under way


def deletable(committed: Mapping[int, int], younger_from: Mapping[int, int]) -> dict[int, int]:
    """Per partition, the offset before which every record may go; partitions without one are left out.

    `committed` is intake's next offset, negative where there is none. `younger_from` is the first offset that
    is still young, negative where there is none: then only intake's own offset bounds.
    """
    found = {}
    for partition, next_offset in committed.items():
        young = younger_from.get(partition, 0)
        before = next_offset if young < 0 else min(next_offset, young)
        if before > 0:
            found[partition] = before
    return found


def forget_changes(bootstrap: str, before_ms: int, topic: str = CHANGES, group: str = GROUP) -> int:
    """Deletes consumed changes from before `before_ms` (Unix, ms) and returns how many partitions it cut.

    Blocking, bounded. Raises OperationalError when Kafka can't be asked; then nothing or a part was deleted,
    and the next call goes on.
    """
    try:
        cuts = [
            TopicPartition(topic, partition, offset)
            for partition, offset in deletable(*_offsets(bootstrap, before_ms, topic, group)).items()
        ]
        admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
        deleted = admin.delete_records(cuts, request_timeout=_TIMEOUT_S) if cuts else {}
        for future in deleted.values():
            future.result(_TIMEOUT_S)
    except (KafkaException, TimeoutError) as error:
        raise OperationalError(
            f"Consumed changes could not be deleted from {topic}: {error}. It is tried again; until then the "
            "topic grows."
        ) from error
    return len(cuts)


def _offsets(bootstrap: str, before_ms: int, topic: str, group: str) -> tuple[dict[int, int], dict[int, int]]:
    """What `deletable` goes by. Raises KafkaException."""
    with outside_of(group, bootstrap) as consumer:
        partitions = consumer.list_topics(topic, timeout=_TIMEOUT_S).topics[topic].partitions
        asked = [TopicPartition(topic, partition) for partition in partitions]
        committed = consumer.committed(asked, timeout=_TIMEOUT_S) if asked else []
        since = [TopicPartition(topic, partition, before_ms) for partition in partitions]
        younger_from = consumer.offsets_for_times(since, timeout=_TIMEOUT_S) if since else []
    for place in (*committed, *younger_from):
        if place.error:
            raise KafkaException(place.error)
    return _by_partition(committed), _by_partition(younger_from)


def _by_partition(places: list[TopicPartition]) -> dict[int, int]:
    return {place.partition: place.offset for place in places}
