"""The idempotent producer of payments.changes: records in, delivery reports out.

Promises: per key, the order given is the order in the log, also over retries and broker restarts; an outage
of Kafka never fails a message (`message.timeout.ms=0`), it fills the bounded queue; whatever does fail breaks
this producer as a whole (`broken`), so that nothing is delivered after a hole. The owner then calls `restart`
and ships again from its cursor. A message's partition is Java's murmur2 of its key, so that other tools agree
on it.

One thread polls each producer; it hands reports to the event loop once a poll, not once a record.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from cdc.client_log import ClientErrors
from cdc.tailer import Identity, Record
from tollgate.clock import Clock
from tollgate.topics import (
    CHANGES,
    HEADER_EPOCH,
    HEADER_INCARNATION,
    HEADER_SEQUENCE,
    HEADER_SHARD,
    HEADER_TRACEPARENT,
)

_POLL_S: Final = 0.25
_JOIN_S: Final = 2.0

_Headers = list[tuple[str, str | bytes | None]]
Reports = Callable[[int, list[int]], None]  # generation, delivered sequences; on the event loop


@dataclass(frozen=True)
class PublisherPolicy:
    bootstrap: str
    shard: int
    in_flight_records_max: int
    in_flight_kib_max: int
    linger_ms: float

    def producer_config(self) -> Mapping[str, str | int | float | bool]:
        return {
            "bootstrap.servers": self.bootstrap,
            "client.id": f"tollgate-cdc-{self.shard}",
            "enable.idempotence": True,
            "enable.gapless.guarantee": True,  # one failed message ends the producer: none overtakes it
            "acks": "all",
            "message.timeout.ms": 0,
            "partitioner": "murmur2_random",
            "linger.ms": self.linger_ms,
            "queue.buffering.max.messages": self.in_flight_records_max,
            "queue.buffering.max.kbytes": self.in_flight_kib_max,
            "topic.metadata.propagation.max.ms": 5_000,
            "reconnect.backoff.max.ms": 500,
            "retry.backoff.max.ms": 500,
            "log_level": 2,
        }


class ChangePublisher(Protocol):
    """What the runner needs of a producer."""

    broken: str | None  # why nothing more is delivered, until `restart`

    def publish(self, identity: Identity, records: Sequence[Record]) -> int: ...

    def forget(self) -> int: ...

    async def restart(self) -> int: ...

    async def close(self, flush_s: float) -> None: ...


class KafkaPublisher:
    """Built on a running event loop; `on_reports` is called there."""

    def __init__(self, policy: PublisherPolicy, on_reports: Reports, clock: Clock) -> None:
        self._policy = policy
        self._on_reports = on_reports
        self._loop = asyncio.get_running_loop()
        self._passing_errors = ClientErrors("producer", clock)
        self._generation = 0
        self.broken: str | None = None
        self._line = self._new_line()

    def publish(self, identity: Identity, records: Sequence[Record]) -> int:
        """Queues as many of `records`, from the first, as there is space for, and returns how many."""
        if self.broken is not None:
            return 0
        stands: _Headers = [
            (HEADER_SHARD, b"%d" % self._policy.shard),
            (HEADER_INCARNATION, identity.incarnation.hex().encode()),
        ]
        line, generation = self._line, self._generation
        for index, record in enumerate(records):
            headers: _Headers = [
                *stands,
                (HEADER_EPOCH, b"%d" % record.epoch),
                (HEADER_SEQUENCE, b"%d" % record.sequence),
                (HEADER_TRACEPARENT, record.traceparent.encode()),
            ]
            try:
                line.producer.produce(
                    CHANGES,
                    value=record.value,
                    key=record.key.encode(),
                    headers=headers,
                    on_delivery=partial(line.report, generation, record.sequence),
                )
            except BufferError:
                return index
            except KafkaException as error:
                self._break(line, f"produce: {error.args[0].str()}")
                return index
        return len(records)

    def forget(self) -> int:
        """Reports of what was published so far are dropped. Returns the generation of what follows."""
        self._generation += 1
        return self._generation

    async def restart(self) -> int:
        """A new producer; what the old one had not delivered is gone with it. Returns the new generation."""
        self.forget()
        await asyncio.to_thread(self._line.end)
        self.broken = None
        self._line = self._new_line()
        return self._generation

    async def close(self, flush_s: float) -> None:
        """Waits for what is in flight, `flush_s` at most, then drops it."""
        if self.broken is None:
            await asyncio.to_thread(self._line.producer.flush, flush_s)
        await asyncio.to_thread(self._line.end)
        await asyncio.sleep(0)  # what the last poll has handed over is taken before the caller goes on

    def _new_line(self) -> _Line:
        return _Line(self._policy.producer_config(), self._deliver, self._break, self._passing_errors)

    def _deliver(self, line: _Line, reports: list[tuple[int, int]]) -> None:
        """On the poll thread."""
        by_generation: dict[int, list[int]] = {}
        for generation, sequence in reports:
            by_generation.setdefault(generation, []).append(sequence)
        for generation, sequences in by_generation.items():
            self._loop.call_soon_threadsafe(self._on_reports, generation, sequences)

    def _break(self, line: _Line, reason: str) -> None:
        """On any thread. The first reason stays."""
        if line is self._line and self.broken is None:
            self.broken = reason


class _Line:
    """One producer and the thread that polls it, from its first message to its last."""

    def __init__(
        self,
        config: Mapping[str, str | int | float | bool],
        deliver: Callable[[_Line, list[tuple[int, int]]], None],
        broke: Callable[[_Line, str], None],
        passing_errors: Callable[[KafkaError], None],
    ) -> None:
        self._deliver = deliver
        self._broke = broke
        self._reports: list[tuple[int, int]] = []
        self._passing_errors = passing_errors
        self._ending = threading.Event()
        self.producer = Producer({**config, "error_cb": self._on_error})
        self._thread = threading.Thread(target=self._poll, name="producer-poll", daemon=True)
        self._thread.start()

    def report(self, generation: int, sequence: int, error: KafkaError | None, _message: Message) -> None:
        """Called by librdkafka inside a poll."""
        if error is None:
            self._reports.append((generation, sequence))
        elif not self._ending.is_set():
            self._broke(self, f"delivery of change {sequence}: {error.str()}")

    def end(self) -> None:
        """Blocking, bounded. What is still queued is dropped."""
        self._ending.set()
        self.producer.purge()
        self._thread.join(_JOIN_S)

    def _poll(self) -> None:
        while not self._ending.is_set():
            self.producer.poll(_POLL_S)
            self._hand_over()
        self.producer.poll(0)
        self._hand_over()

    def _hand_over(self) -> None:
        if self._reports:
            reports, self._reports = self._reports, []
            self._deliver(self, reports)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._broke(self, f"fatal: {error.str()}")
        else:
            self._passing_errors(error)
