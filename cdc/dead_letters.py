"""Records that fail by their content, on their way to payments.dlq: original bytes, and beside them why."""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple, Protocol

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from tollgate.topics import DLQ

_TRY_S: Final = 10.0
_RETRY_S: Final = 1.0

log = structlog.get_logger()


class DeadLetter(NamedTuple):
    key: bytes | None
    value: bytes | None
    error: str
    origin_topic: str
    origin_partition: int
    origin_offset: int


class DeadLetters(Protocol):
    async def send(self, letter: DeadLetter) -> None:
        """Returns when Kafka has it, however long that takes."""
        ...


class KafkaDeadLetters:
    """They are rare: a producer lives for one letter."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap

    async def send(self, letter: DeadLetter) -> None:
        while (problem := await asyncio.to_thread(self._try, letter)) is not None:
            log.warning("dead_letter_not_sent", error=problem, offset=letter.origin_offset)
            await asyncio.sleep(_RETRY_S)

    def _try(self, letter: DeadLetter) -> str | None:
        """Blocking, bounded. What went wrong, or None once it is delivered."""
        failed: list[str] = []
        delivered: list[bool] = []

        def on_delivery(error: KafkaError | None, _message: Message) -> None:
            if error is None:
                delivered.append(True)
            else:
                failed.append(error.str())

        producer = Producer(
            {
                "bootstrap.servers": self._bootstrap,
                "enable.idempotence": True,
                "acks": "all",
                "message.timeout.ms": int(_TRY_S * 1000),
                "topic.metadata.propagation.max.ms": 5_000,
                "partitioner": "murmur2_random",
                "log_level": 2,
            }
        )
        try:
            producer.produce(
                DLQ,
                key=letter.key,
                value=letter.value,
                headers=[
                    ("error", letter.error.encode()),
                    ("attempts", b"1"),
                    ("origin_topic", letter.origin_topic.encode()),
                    ("origin_partition", b"%d" % letter.origin_partition),
                    ("origin_offset", b"%d" % letter.origin_offset),
                ],
                on_delivery=on_delivery,
            )
        except KafkaException as error:
            return str(error)
        producer.flush(_TRY_S + 1)
        return None if delivered else (failed or ["no answer in time"])[0]
