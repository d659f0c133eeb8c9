"""Reads payments.dlq from its beginning to where it ends now. Blocking, bounded, in no consumer group."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from processor.dead_letters import ATTEMPTS, ERROR, ORIGIN, Origin, parse_origin
from tollgate.errors import OperationalError
from tollgate.topics import DLQ

_TIMEOUT_S: Final = 10.0
_SILENCE_S: Final = 30.0
_BATCH: Final = 1000


@dataclass(frozen=True, slots=True)
class Letter:
    """One record of payments.dlq, at `offset` there. `origin` is where it first was."""

    offset: int
    origin: Origin
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]
    error: str
    attempts: int
    at_ms: int


def read_letters(
    bootstrap: str, progress: Callable[[int, int], None] = lambda _done, _of: None, topic: str = DLQ
) -> Iterator[Letter]:
    """In order. A record that says not where it comes from comes from here. Raises OperationalError."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"tollgate-dlq-{uuid4().hex}",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "check.crcs": True,
            "fetch.queue.backoff.ms": 10,
        }
    )
    try:
        place = TopicPartition(topic, 0)
        first, end = consumer.get_watermark_offsets(place, timeout=_TIMEOUT_S)
        consumer.assign([TopicPartition(topic, 0, first)])
        yield from _until(consumer, first, end, progress)
    except KafkaException as error:
        raise OperationalError(
            f"{topic} could not be read from {bootstrap}: {error.args[0].str()}. Is Kafka up?"
        ) from error
    finally:
        consumer.close()


def read_values(bootstrap: str, offsets: Collection[int], topic: str = DLQ) -> dict[int, bytes]:
    """The values of the records at those offsets. Raises OperationalError, also for one that is not there."""
    wanted = set(offsets)
    letters = read_letters(bootstrap, topic=topic) if wanted else iter(())
    found = {letter.offset: letter.value for letter in letters if letter.offset in wanted}
    if missing := wanted - found.keys():
        raise OperationalError(f"{topic} no longer has its record {min(missing)}. Look at its retention.")
    return found


def _until(
    consumer: Consumer, first: int, end: int, progress: Callable[[int, int], None]
) -> Iterator[Letter]:
    position, heard = first, time.monotonic()
    while position < end:
        for message in consumer.consume(_BATCH, timeout=0.5):
            if problem := message.error():
                raise KafkaException(problem)
            heard, position = time.monotonic(), (message.offset() or 0) + 1
            if position <= end:
                yield _letter(message)
        progress(min(position, end) - first, end - first)
        if time.monotonic() - heard > _SILENCE_S:
            raise OperationalError(f"Kafka sends nothing more of {DLQ} from offset {position}; run it again.")


def _letter(message: Message) -> Letter:
    headers = tuple((str(header[0]), _bytes(header[1])) for header in message.headers() or ())
    said = {name: value.decode(errors="replace") for name, value in headers}
    offset = message.offset() or 0
    origin = parse_origin("/".join(said.get(name, "") for name in ORIGIN))
    attempts = said.get(ATTEMPTS, "")
    return Letter(
        offset=offset,
        origin=origin or Origin(DLQ, 0, offset),
        key=_bytes(message.key()),
        value=_bytes(message.value()),
        headers=headers,
        error=said.get(ERROR, ""),
        attempts=int(attempts) if attempts.isdigit() else 1,
        at_ms=message.timestamp()[1],
    )


def _bytes(value: str | bytes | None) -> bytes:
    return value.encode() if isinstance(value, str) else value or b""
