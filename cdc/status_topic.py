"""payments.status as one shard reads it: its own partition, assigned by hand, the position in the group's
offsets.

The group's name holds the store's incarnation, so that a replaced volume starts at the earliest snapshot
there is. Commits follow what the reader says is done, at most twice a second: applying is idempotent, so a
crash only repeats. Beside the offset stands when the last snapshot was published, so that a reader whose
place was deleted knows since when it has missed something. All calls are blocking and bounded; one thread
makes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple, Protocol

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from cdc.client_log import ClientErrors
from tollgate.clock import Clock
from tollgate.errors import OperationalError
from tollgate.topics import STATUS, status_group_prefix

_POLL_S: Final = 0.5
_ASK_S: Final = 1.5  # a stop waits for the one under way
_COMMIT_EVERY_S: Final = 0.5
_CLOSE_S: Final = 3.0

_PLACE_LOST: Final = "_AUTO_OFFSET_RESET"

log = structlog.get_logger()


class StatusRecord(NamedTuple):
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


class Beginning(NamedTuple):
    """Where reading begins. `is_lost`: what lay between the snapshot published then (0: nobody knows) and
    `offset` is gone from the topic and was not applied."""

    offset: int
    published_at_us: int
    is_lost: bool


class Position(NamedTuple):
    """What the group has committed: the next offset, and when the snapshot before it was published."""

    offset: int
    published_at_us: int


def beginning(committed: Position | None, low: int, high: int) -> Beginning:
    """The partition holds [low, high). Pure."""
    if committed is None:
        return Beginning(low, 0, is_lost=low > 0)
    if low <= committed.offset <= high:
        return Beginning(*committed, is_lost=False)
    return Beginning(low, committed.published_at_us, is_lost=True)


class StatusSource(Protocol):
    """Reads in order from where the group stands."""

    async def begin(self) -> Beginning:
        """Before anything else; again after OperationalError, which says that it can't be known now."""
        ...

    async def next_batch(self) -> Sequence[StatusRecord]:
        """What has come, waiting for a moment; empty when nothing has.

        Raises OperationalError; then it must be opened anew, because something may have been lost on the way
        here.
        """
        ...

    async def done(self, offset: int, published_at_us: int) -> None:
        """Everything below `offset` is applied, the last of it published then; committed soon."""
        ...

    async def close(self) -> None: ...


class KafkaStatusSource:
    """Kafka need not be up before `begin`."""

    def __init__(
        self, *, bootstrap: str, shard: int, incarnation: bytes, records_max: int, clock: Clock
    ) -> None:
        self._shard = shard
        self._records_max = records_max
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="status")
        self._done: Position | None = None
        self._commit_at = 0.0
        self._place_lost: KafkaError | None = None
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": status_group_prefix(shard) + incarnation.hex(),
                "client.id": f"tollgate-status-{shard}",
                "enable.auto.commit": False,
                "check.crcs": True,
                # A place that is gone is an error: what was there has to come from elsewhere.
                "auto.offset.reset": "error",
                # At its default a slow reader goes silent for up to 1 s at a time.
                "fetch.queue.backoff.ms": 10,
                "queued.max.messages.kbytes": 8 * 1024,
                "queued.min.messages": 2_000,
                "topic.metadata.propagation.max.ms": 5_000,
                "reconnect.backoff.max.ms": 500,
                "retry.backoff.max.ms": 500,
                "log_level": 2,
                "error_cb": ClientErrors("status feed", clock),
            }
        )

    async def begin(self) -> Beginning:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._begin)

    async def next_batch(self) -> Sequence[StatusRecord]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._poll)

    async def done(self, offset: int, published_at_us: int) -> None:
        self._done = Position(offset, published_at_us)

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await asyncio.wait_for(loop.run_in_executor(self._thread, self._end), _CLOSE_S)
        except TimeoutError:
            log.warning("status_consumer_not_closed", position=self._done)
        self._thread.shutdown(wait=False)

    def _begin(self) -> Beginning:
        place = TopicPartition(STATUS, self._shard)
        try:
            (stored,) = self._consumer.committed([place], timeout=_ASK_S)
            low, high = self._consumer.get_watermark_offsets(place, timeout=_ASK_S)
        except KafkaException as error:
            raise OperationalError(
                f"Where {STATUS}/{self._shard} is to be read from can't be known: {error}."
            ) from error
        found = beginning(_position(stored), low, high)
        self._consumer.assign([TopicPartition(STATUS, self._shard, found.offset)])
        return found

    def _poll(self) -> list[StatusRecord]:
        self._commit_when_due()
        if self._place_lost is not None:
            raise OperationalError(f"{STATUS}/{self._shard}: {self._place_lost.str()}.")
        try:
            first = self._consumer.poll(_POLL_S)
            if first is None:
                return []
            # `consume` alone would wait for a full batch or its whole time-out.
            messages = [first, *self._consumer.consume(self._records_max - 1, timeout=0)]
        except KafkaException as error:
            raise OperationalError(f"Reading {STATUS}/{self._shard} failed: {error}.") from error
        return self._records(messages)

    def _records(self, messages: Sequence[Message]) -> list[StatusRecord]:
        """Every record of the batch: the client will not give it again, whatever error came between."""
        records: list[StatusRecord] = []
        problem: KafkaError | None = None
        for message in messages:
            offset = message.offset()
            error = message.error()
            problem = error or problem
            if error is not None and error.name() == _PLACE_LOST:
                self._place_lost = error  # nothing comes after it, whatever came before it in this batch
            if error is None and offset is not None:
                records.append(StatusRecord(self._shard, offset, message.key(), message.value()))
        if problem is not None and not records:
            raise OperationalError(f"Reading {STATUS}/{self._shard} failed: {problem.str()}.")
        return records

    def _commit_when_due(self) -> None:
        if self._done is not None and self._clock.monotonic() >= self._commit_at:
            self._commit_at = self._clock.monotonic() + _COMMIT_EVERY_S
            self._commit(self._done)
            self._done = None

    def _commit(self, done: Position) -> None:
        """Not waited for: one that fails is covered by the next, or its records are applied again."""
        place = TopicPartition(STATUS, self._shard, done.offset, str(done.published_at_us))
        try:
            self._consumer.commit(offsets=[place], asynchronous=True)
        except KafkaException as error:
            log.info("status_commit_failed", error=str(error))

    def _end(self) -> None:
        if self._done is not None:
            self._commit(self._done)
        self._consumer.close()


def _position(stored: TopicPartition) -> Position | None:
    """None: the group has committed nothing, or so long ago that Kafka has forgotten it."""
    if stored.offset < 0:
        return None
    said = stored.metadata or ""
    return Position(stored.offset, int(said) if said.isdecimal() else 0)
