"""The consumer of payments.changes: one thread that reads, hands over, and commits what was handled.

1. It takes what is there, up to a batch, as soon as there is one record; after a large batch the next gathers
   for a moment (`tollgate/pace`).
2. The handler makes the batch durable. While it can't (OperationalError), the partitions are paused, the
   batch is kept and offered again, and polling goes on, so that the group does not give the partitions away.
3. Only then may the batch's offsets be committed; the client does so twice a second, when partitions go to
   another, and at the end. A crash in between repeats what was handled since.

A client that is broken for good (a broker killed after a restart of ours can take us for our predecessor and
fence us) says so once, in its error callback or in place of a message, and returns nothing from then on: it
is built anew.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from processor.changes import ChangeRecord
from processor.patience import patient_wait
from tollgate.errors import OperationalError
from tollgate.pace import Pace
from tollgate.topics import CHANGES, INTAKE_GROUP

GROUP: Final = INTAKE_GROUP
PACE: Final = Pace(each_s=0.003, most_s=0.03)
_POLL_S: Final = 0.2
_JOIN_S: Final = 2.0
_REBUILD_S: Final = 1.0

_log = structlog.get_logger()

Handler = Callable[[Sequence[ChangeRecord]], Awaitable[None]]


class ChangeConsumer:
    """Start it inside the event loop in which `handle` is to run. `failed` resolves if the thread dies.

    `instance` names this member for good: started again under the same name it has its partitions back at
    once, where an unnamed one waits for its predecessor's session to end (6 s). No two may have one name.
    """

    def __init__(self, bootstrap: str, handle: Handler, batch_max: int, instance: str | None = None) -> None:
        self._configuration = _configuration(bootstrap, instance) | {"error_cb": self._on_error}
        self._handle = handle
        self._batch_max = batch_max
        self._stopping = threading.Event()
        self._broken: KafkaError | None = None
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        """Finishes the batch in hand, commits, leaves the group. Bounded."""
        self._stopping.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, _JOIN_S)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._consume()
        except BaseException as error:
            self._loop.call_soon_threadsafe(self._fail, error)

    def _fail(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)

    def _consume(self) -> None:
        """Until told to stop, or until the client breaks and must be built anew."""
        self._broken = None
        consumer = Consumer(self._configuration)
        try:
            consumer.subscribe([CHANGES], on_lost=_on_lost)
            while not self._stopping.is_set():
                if messages := self._take(consumer, _POLL_S):
                    self._deliver(consumer, messages)
                if self._broken is not None:
                    raise KafkaException(self._broken)
        except KafkaException as error:
            _log.warning("kafka_consumer_rebuilt", detail=str(error))
            self._stopping.wait(_REBUILD_S)
        finally:
            consumer.close()

    def _take(self, consumer: Consumer, timeout_s: float) -> list[Message]:
        first = consumer.poll(timeout_s)
        if first is None:
            return []
        messages = [first, *consumer.consume(self._batch_max - 1, timeout=0)]
        return [message for message in messages if _is_record(message)]

    def _on_error(self, error: KafkaError) -> None:
        """Within a poll, on the thread."""
        fatal = _is_for_good(error)
        _log.warning("kafka_consumer", detail=error.str(), fatal=fatal)
        if fatal:
            self._broken = error

    def _deliver(self, consumer: Consumer, messages: list[Message]) -> None:
        wait, begun = patient_wait(), time.monotonic()
        while not self._stopping.is_set():
            records = [_record(message) for message in messages]
            try:
                asyncio.run_coroutine_threadsafe(_call(self._handle, records), self._loop).result()
            except OperationalError as error:
                if self._broken is not None:  # its place is another's now, or will be read again
                    return
                _log.warning("intake_waits", detail=error.message, changes=len(messages))
                consumer.pause(consumer.assignment())
                messages += self._take(consumer, wait.next())
                continue
            consumer.resume(consumer.assignment())
            _may_commit(consumer, messages)
            if len(messages) < self._batch_max:
                self._stopping.wait(PACE.pause_s(len(messages), time.monotonic() - begun))
            return


async def _call(handle: Handler, records: Sequence[ChangeRecord]) -> None:
    await handle(records)


def _configuration(bootstrap: str, instance: str | None) -> dict[str, str | int | bool]:
    named: dict[str, str | int | bool] = {"group.instance.id": instance} if instance else {}
    return named | {
        "bootstrap.servers": bootstrap,
        "group.id": GROUP,
        "auto.offset.reset": "earliest",
        # What `_may_commit` names and nothing else; each commit costs the broker more than a fetch does.
        "enable.auto.commit": True,
        "enable.auto.offset.store": False,
        "auto.commit.interval.ms": 500,
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": 6000,
        "heartbeat.interval.ms": 1500,
        # Nothing is fetched while anything waits to be handled: a fetch brings what came during a batch, not
        # what came with each request of a tailer. What that is worth: docs/decisions/0037.
        "queued.min.messages": 1,
        "fetch.queue.backoff.ms": 10,
        "check.crcs": True,  # off by default here, on in Java's client: an amount must not change on its way
        "topic.metadata.refresh.interval.ms": 10_000,
        "log.connection.close": False,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 500,
    }


def _on_lost(_consumer: Consumer, partitions: list[TopicPartition]) -> None:
    _log.warning("partitions_lost", count=len(partitions), detail="Another processor repeats what was open.")


def _is_record(message: Message) -> bool:
    error = message.error()
    if error is None:
        return True
    if _is_for_good(error):
        raise KafkaException(error)
    _log.warning("kafka_consumer", detail=error.str(), fatal=False)
    return False


def _is_for_good(error: KafkaError) -> bool:
    """What ends a client is fatal by its code alone when it comes in place of a message."""
    return error.fatal() or error.code() == KafkaError._FATAL  # noqa: SLF001 - its name


def _record(message: Message) -> ChangeRecord:
    _kind, timestamp_ms = message.timestamp()
    headers = [(str(header[0]), _bytes(header[1])) for header in message.headers() or ()]
    return ChangeRecord(
        topic=message.topic() or "",
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        key=_bytes(message.key()),
        value=_bytes(message.value()),
        headers=headers,
        timestamp_us=timestamp_ms * 1000,
    )


def _bytes(value: str | bytes | None) -> bytes:
    return value.encode() if isinstance(value, str) else value or b""


def _may_commit(consumer: Consumer, messages: Sequence[Message]) -> None:
    try:
        consumer.store_offsets(offsets=_next_offsets(messages))
    except KafkaException as error:  # none of the partitions is ours any more: another repeats the batch
        _log.info("offsets_not_stored", detail=str(error))


def _next_offsets(messages: Sequence[Message]) -> list[TopicPartition]:
    """One past the last handled record of each partition."""
    offsets: dict[int, int] = {}
    for message in messages:
        partition = message.partition() or 0
        offsets[partition] = max(offsets.get(partition, 0), (message.offset() or 0) + 1)
    return [TopicPartition(CHANGES, partition, offset) for partition, offset in offsets.items()]
