"""payments.changes from its beginning to where it ended when it was asked: for checks, beside every group.

Bounded: memory by the client's queue, every wait by a time-out. Nothing is committed; no group is joined.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple, Protocol, cast

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from cdc.comparison import Headers, TopicFloor, TopicRecord
from tollgate.errors import OperationalError
from tollgate.topics import CHANGES

_SILENCE_S_MAX: Final = 30.0
_AT_ONCE: Final = 5_000
_POLL_S: Final = 0.5
_END_OF_PARTITION: Final = "_PARTITION_EOF"
_HOPELESS: Final = frozenset(
    {"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION", "TOPIC_AUTHORIZATION_FAILED"}
)


class Extent(NamedTuple):
    """Where a partition begins and ended."""

    low: int
    high: int


class ChangeTopic(Protocol):
    def extents(self) -> dict[int, Extent]: ...

    def floors(self, extents: Mapping[int, Extent]) -> dict[int, TopicFloor]: ...

    def read(
        self, extents: Mapping[int, Extent], begin: Mapping[int, int]
    ) -> Iterator[Sequence[TopicRecord]]: ...


class KafkaChangeTopic:
    """Every error is an OperationalError that names the brokers."""

    def __init__(self, bootstrap: str, topic: str = CHANGES, ask_s: float = 10.0) -> None:
        self._bootstrap = bootstrap
        self._ask_s = ask_s
        self.topic = topic

    def extents(self) -> dict[int, Extent]:
        """Of each partition, as it is now."""
        with self._consumer() as consumer:
            known = consumer.list_topics(self.topic, timeout=self._ask_s).topics[self.topic]
            if known.error is not None:
                raise OperationalError(
                    f"Kafka at {self._bootstrap} has no topic {self.topic} ({known.error.str()}). Start the "
                    "stack, or correct TOLLGATE_KAFKA_BOOTSTRAP."
                )
            places = {number: TopicPartition(self.topic, number) for number in known.partitions}
            return {
                number: Extent(*consumer.get_watermark_offsets(place, timeout=self._ask_s))
                for number, place in places.items()
            }

    def floors(self, extents: Mapping[int, Extent]) -> dict[int, TopicFloor]:
        """What retention has left of each partition. Few records are read for it."""
        oldest: dict[int, int] = {}
        cut = {number: extent for number, extent in extents.items() if extent.low > 0}
        first = {number: Extent(low, min(low + 1, high)) for number, (low, high) in cut.items()}
        for batch in self._messages(first, {number: low for number, (low, _high) in cut.items()}):
            for message in batch:
                oldest.setdefault(message.partition() or 0, message.timestamp()[1] * 1_000)
        return {number: TopicFloor(number in cut, oldest.get(number)) for number in extents}

    def read(
        self, extents: Mapping[int, Extent], begin: Mapping[int, int]
    ) -> Iterator[Sequence[TopicRecord]]:
        """The partitions that `begin` names, in order, each from that offset to the end of its extent."""
        for batch in self._messages(extents, begin):
            yield [_record(message) for message in batch]

    def _messages(
        self, extents: Mapping[int, Extent], begin: Mapping[int, int]
    ) -> Iterator[Sequence[Message]]:
        unread = {number for number, start in begin.items() if start < extents[number].high}
        if not unread:
            return
        with self._consumer() as consumer:
            consumer.assign([TopicPartition(self.topic, number, begin[number]) for number in unread])
            heard = time.monotonic()
            while unread:
                messages = consumer.consume(_AT_ONCE, timeout=_POLL_S)
                if messages:
                    heard = time.monotonic()
                elif time.monotonic() - heard > _SILENCE_S_MAX:
                    raise OperationalError(
                        f"Kafka at {self._bootstrap} gave nothing more of {self.topic}/{min(unread)} for "
                        f"{_SILENCE_S_MAX:g} s, though there is more. Check that its brokers are up."
                    )
                yield _within(messages, extents, unread)

    @contextmanager
    def _consumer(self) -> Iterator[Consumer]:
        try:
            consumer = Consumer(
                {
                    "bootstrap.servers": self._bootstrap,
                    "group.id": "tollgate-cdc-check",  # required; never joined
                    "enable.auto.commit": False,
                    "enable.partition.eof": True,
                    "auto.offset.reset": "earliest",
                    "check.crcs": True,
                    "fetch.queue.backoff.ms": 10,
                    "queued.max.messages.kbytes": 32 * 1024,
                    "reconnect.backoff.max.ms": 500,
                    "log_level": 2,
                }
            )
            try:
                yield consumer
            finally:
                consumer.close()
        except KafkaException as error:
            raise OperationalError(
                f"Kafka at {self._bootstrap} could not be read ({error.args[0].str()}). Check that it runs "
                "and that TOLLGATE_KAFKA_BOOTSTRAP is right."
            ) from error


def _within(messages: Sequence[Message], extents: Mapping[int, Extent], unread: set[int]) -> list[Message]:
    """The records below the ends. A partition leaves `unread` once its end was reached."""
    records = []
    for message in messages:
        partition, offset, error = message.partition(), message.offset(), message.error()
        if error is not None and error.name() != _END_OF_PARTITION:
            if error.fatal() or error.name() in _HOPELESS:
                raise KafkaException(error)
            continue  # a broker that is away for a moment; silence has its own bound
        if partition is None or offset is None:
            continue
        high = extents[partition].high
        if offset >= high - 1:
            unread.discard(partition)
        if error is None and offset < high:
            records.append(message)
    return records


def _record(message: Message) -> TopicRecord:
    headers = cast("Headers", tuple(message.headers() or ()))
    partition, offset = message.partition() or 0, message.offset() or 0
    return TopicRecord(partition, offset, message.key() or b"", message.value() or b"", headers)
