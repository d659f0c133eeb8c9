"""The producer: batches in, one delivery report each out.

Idempotent, acks=all, and no time limit on a message: while Kafka is down `publish` waits, nothing fails. One
thread polls; it wakes the event loop once a batch. After a fatal error of the client the producer is built
anew; what it had not delivered is reported so, and its owner sends it again.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

_BY_KEY: Final = -1  # librdkafka's RD_KAFKA_PARTITION_UA
_POLL_S: Final = 0.1
_CLOSE_S: Final = 1.0
_PROBE_S: Final = 2.0

_log = structlog.get_logger()

Headers = Sequence[tuple[str, bytes]]


class Outgoing(NamedTuple):
    """A record to be. Without a partition its key decides, as the Java client's murmur2 does."""

    topic: str
    key: bytes
    value: bytes
    headers: Headers = ()
    partition: int | None = None


class Publishing(Protocol):
    async def publish(self, outgoing: Sequence[Outgoing]) -> list[bool]:
        """Whether each was delivered, in order. Records of one key keep their order."""
        ...


class _Batch:
    """Counts delivery reports down, from either thread; resolves its future once, on the loop."""

    def __init__(self, size: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._left = size
        self.delivered = [False] * size
        self.done: asyncio.Future[None] = self._loop.create_future()

    def report(self, index: int, *, delivered: bool) -> None:
        self.delivered[index] = delivered
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self._loop.call_soon_threadsafe(self._resolve)

    def _resolve(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class Publisher:
    """Build it once; `close` it once. `publish` may be called by several tasks at a time."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._fatal = False
        self._closed = threading.Event()
        self._producer = self._build()
        self._thread = threading.Thread(target=self._poll, name="producer", daemon=True)
        self._thread.start()

    async def publish(self, outgoing: Sequence[Outgoing]) -> list[bool]:
        """Whether each was delivered, in order. Records of one key keep their order."""
        if not outgoing:
            return []
        if self._fatal:
            self._rebuild()
        batch = _Batch(len(outgoing))
        for index, record in enumerate(outgoing):
            self._enqueue(batch, index, record)
        await batch.done
        return batch.delivered

    def probe(self, topic: str) -> str | None:
        """Blocking, bounded: why Kafka can't be used now, or None."""
        try:
            found = self._producer.list_topics(topic, timeout=_PROBE_S).topics[topic]
        except KafkaException as error:
            return f"Kafka does not answer: {error.args[0].str()}."
        return f"Kafka has no topic {topic}: {found.error.str()}." if found.error else None

    def close(self) -> None:
        """Gives what is under way a moment, then drops it; its owner never saw it delivered."""
        self._producer.flush(_CLOSE_S)
        self._producer.purge()
        self._closed.set()
        self._thread.join(_CLOSE_S)

    def _enqueue(self, batch: _Batch, index: int, record: Outgoing) -> None:
        def on_delivery(error: KafkaError | None, message: Message) -> None:
            # Without an offset it is a success that only the client believes in.
            batch.report(index, delivered=error is None and message.offset() is not None)

        try:
            self._producer.produce(
                record.topic,
                key=record.key,
                value=record.value,
                headers=list(record.headers),
                on_delivery=on_delivery,
                partition=_BY_KEY if record.partition is None else record.partition,
            )
        except (BufferError, KafkaException) as error:
            # A client that was refused a topic once says so from memory, for minutes: the next one asks anew.
            self._fatal = self._fatal or isinstance(error, KafkaException)
            _log.warning("produce_refused", topic=record.topic, detail=str(error))
            batch.report(index, delivered=False)

    def _build(self) -> Producer:
        return Producer(
            {
                "bootstrap.servers": self._bootstrap,
                "enable.idempotence": True,
                "acks": "all",
                # With more, a first batch that is refused is overtaken and then taken for a duplicate.
                "max.in.flight.requests.per.connection": 1,
                # Handed over record by record, a batch goes out whole, not its first record before the rest.
                "linger.ms": 2,
                "message.timeout.ms": 0,
                "partitioner": "murmur2_random",
                "topic.metadata.propagation.max.ms": 5000,
                "log.connection.close": False,
                "reconnect.backoff.ms": 50,
                "reconnect.backoff.max.ms": 500,
                "error_cb": self._on_error,
            }
        )

    def _rebuild(self) -> None:
        broken, self._producer, self._fatal = self._producer, self._build(), False
        broken.purge()
        broken.flush(_CLOSE_S)

    def _on_error(self, error: KafkaError) -> None:
        self._fatal = self._fatal or error.fatal()
        _log.warning("kafka_producer", detail=error.str(), fatal=error.fatal())

    def _poll(self) -> None:
        while not self._closed.is_set():
            try:
                self._producer.poll(_POLL_S)
            except (KafkaException, SystemError) as error:
                # So the client tells of a fatal error: not by `error_cb`.
                self._fatal = True
                _log.warning("kafka_producer", detail=str(error.__cause__ or error), fatal=True)
