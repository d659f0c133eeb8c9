"""Asks Kafka about a consumer group's positions without joining the group.

By a consumer that subscribes to nothing: the admin client's ListOffsets has ended whole processes (a
segmentation fault in librdkafka 2.16.0), asked while a broker was just starting.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import Consumer


@contextmanager
def outside_of(group: str, bootstrap: str) -> Iterator[Consumer]:
    """A consumer for requests alone, each with a time-out of its own; closed at the end."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "enable.auto.commit": False,
            "allow.auto.create.topics": False,
            "log_level": 2,
            "reconnect.backoff.max.ms": 500,
        }
    )
    try:
        yield consumer
    finally:
        consumer.close()
