"""The idempotent producer of payments.changes: records in, delivery reports out.

Promises: per key, the order given is the order in the log, also over retries and broker restarts; an outage
of Kafka never fails a message (`message.timeout.ms=0`), it fills the bounded queue; whatever does fail breaks
this producer as a whole (`broken`), so that nothing is delivered after a hole. The owner then calls `restart`
and ships again from its cursor. A message's partition is its key's home (`cdc/home.py`).

The event loop itself polls the producer: after each batch that it hands over, every 25 ms while anything is
in flight (every millisecond where requests wait for a report and Kafka answers), and when the owner says so;
idle, not at all. A thread that polled would wait for the interpreter again with each report, 5 ms at worst
while the loop is busy. Every record has its report; they are counted span by span, and a span is told when
all of it is delivered.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from cdc.client_log import ClientErrors
from cdc.cursor import Span
from cdc.home import Home
from cdc.priming import Priming
from cdc.record import Record
from cdc.tailer import Identity
from cdc.topic_watch import UNKNOWN, Topic
from tollgate.clock import Clock
from tollgate.topics import (
    CHANGES,
    HEADER_EPOCH,
    HEADER_INCARNATION,
    HEADER_SEQUENCE,
    HEADER_SHARD,
    HEADER_TRACEPARENT,
)
from tollgate.v1.change_pb2 import Change

_BYTES_MAX_MIN: Final = 1_000  # the least that the client takes
_BYTES_MAX: Final = 1_000_000
# docs/decisions/0016 has what polling more often costs. The shard is told four times a second, and whoever
# waits for room in flight polls by himself.
_POLL_EVERY_S: Final = 0.025
_AWAITED_POLL_EVERY_S: Final = 0.001
# Kafka has said nothing for so many polls: it is down or busy, and some more milliseconds change nothing.
_POLLS_IN_VAIN_MAX: Final = 250
# How many changes are told together: few enough for the cursor to move finely, and it costs nothing.
_SPAN_RECORDS: Final = 100

_Headers = list[tuple[str, str | bytes | None]]
Reports = Callable[[int, list[Span]], None]  # generation, what is delivered; on the event loop


@dataclass(frozen=True)
class PublisherPolicy:
    bootstrap: str
    shard: int
    in_flight_records_max: int
    in_flight_kib_max: int
    linger_ms: float

    def producer_config(self, topic: Topic = UNKNOWN) -> Mapping[str, str | int | float | bool]:
        return {
            # The topic's bound holds for a batch: larger ones would be refused though every change in them
            # fits. A change that is larger by itself is refused here, before anything can overtake it.
            "message.max.bytes": max(_BYTES_MAX_MIN, min(_BYTES_MAX, topic.record_bytes_max)),
            "batch.size": max(_BYTES_MAX_MIN, min(_BYTES_MAX, topic.record_bytes_max)),
            "bootstrap.servers": self.bootstrap,
            "client.id": f"tollgate-cdc-{self.shard}",
            "enable.idempotence": True,
            "enable.gapless.guarantee": True,  # one failed message ends the producer: none overtakes it
            "acks": "all",
            # With more, a first batch that is refused is overtaken by the second: a broker takes any sequence
            # of a producer that it has no record of, and then takes the first one for a duplicate.
            "max.in.flight.requests.per.connection": 1,
            "message.timeout.ms": 0,
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
    awaited: bool  # requests wait for its reports (ack=replicated)

    def publish(self, identity: Identity, records: Sequence[Record]) -> int: ...

    def poll(self) -> None: ...

    def forget(self) -> int: ...

    async def restart(self, topic: Topic) -> int: ...

    async def close(self, flush_s: float) -> None: ...


class KafkaPublisher:
    """Built on a running event loop and used there alone; `on_reports` is called from `poll`.

    The first producer knows nothing of the topic: `restart` before the first `publish`.
    """

    def __init__(self, policy: PublisherPolicy, on_reports: Reports, clock: Clock) -> None:
        self._policy = policy
        self._on_reports = on_reports
        self._loop = asyncio.get_running_loop()
        self._passing_errors = ClientErrors("producer", clock)
        self._generation = 0
        self._next_poll: asyncio.TimerHandle | None = None
        self._polls_in_vain = 0
        self.broken: str | None = None
        self.awaited = False
        self._line = self._new_line(UNKNOWN)

    def publish(self, identity: Identity, records: Sequence[Record]) -> int:
        """Queues as many of `records`, from the first, as there is space for, and returns how many."""
        if self.broken is not None:
            return 0
        if priming := self._line.priming:
            records = records[: priming.admit(records)]
        stands: _Headers = [
            (HEADER_SHARD, b"%d" % self._policy.shard),
            (HEADER_INCARNATION, identity.incarnation.hex().encode()),
        ]
        count = 0
        while count < len(records):
            together = records[count : count + _SPAN_RECORDS]
            queued = self._line.produce(self._generation, stands, together)
            count += queued
            if queued < len(together):
                break
        self.poll()
        return count

    def poll(self) -> None:
        """Tells what has been delivered."""
        self._poll_no_more()
        self._polls_in_vain = 0 if self._line.poll() else self._polls_in_vain + 1
        self._hand_over()
        if len(self._line.producer):
            self._next_poll = self._loop.call_later(self._poll_again_s(), self.poll)

    def _poll_again_s(self) -> float:
        hears = self._polls_in_vain <= _POLLS_IN_VAIN_MAX
        return _AWAITED_POLL_EVERY_S if self.awaited and hears else _POLL_EVERY_S

    def forget(self) -> int:
        """Reports of what was published so far are dropped. Returns the generation of what follows."""
        self._generation += 1
        return self._generation

    async def restart(self, topic: Topic) -> int:
        """A new producer; what the old one had not delivered is gone with it. Returns the new generation."""
        self.forget()
        self._poll_no_more()
        await asyncio.to_thread(self._line.end)
        self.broken = None
        self._line = self._new_line(topic)
        return self._generation

    async def close(self, flush_s: float) -> None:
        """Waits for what is in flight, `flush_s` at most, then drops it."""
        self._poll_no_more()
        if self.broken is None:
            await asyncio.to_thread(self._line.producer.flush, flush_s)
        self._hand_over()
        await asyncio.to_thread(self._line.end)

    def _new_line(self, topic: Topic) -> _Line:
        config = self._policy.producer_config(topic)
        home = Home(self._policy.shard, topic.partitions)
        return _Line(config, home, self._break, self._passing_errors)

    def _poll_no_more(self) -> None:
        if self._next_poll is not None:
            self._next_poll.cancel()
            self._next_poll = None

    def _hand_over(self) -> None:
        delivered = self._line.take_delivered(self._generation)
        if delivered:
            self._on_reports(self._generation, delivered)

    def _break(self, line: _Line, reason: str) -> None:
        """On any thread. The first reason stays."""
        if line is self._line and self.broken is None:
            self.broken = reason


class _Pending:
    """A span on its way."""

    __slots__ = ("count", "delivered", "first", "generation", "line")

    def __init__(self, line: _Line, generation: int, first: int) -> None:
        self.line = line
        self.generation = generation
        self.first = first
        self.count = 0
        self.delivered = 0

    def report(self, error: KafkaError | None, message: Message) -> None:
        """Called by librdkafka inside a poll, once for each record. Only an offset proves that it is in the
        log: a broker that took a later batch calls an earlier one a duplicate, and that the client reports as
        a success."""
        if error is None and message.offset() is not None:
            self.line.reported.append(self)
        else:
            self.line.failed("success without an offset" if error is None else _named(error), message)

    def report_primed(self, error: KafkaError | None, message: Message) -> None:
        """The same, while there are partitions that this producer has not proven itself in."""
        self.report(error, message)
        if error is None and (partition := message.partition()) is not None:
            self.line.priming.delivered(partition)


class _Line:
    """One producer from its first message to its last."""

    def __init__(
        self,
        config: Mapping[str, str | int | float | bool],
        home: Home,
        broke: Callable[[_Line, str], None],
        passing_errors: Callable[[KafkaError], None],
    ) -> None:
        self._broke = broke
        self._passing_errors = passing_errors
        self._ending = False
        self._home = home
        self.priming = Priming(home)
        self.reported: list[_Pending] = []
        self.producer = Producer({**config, "error_cb": self._on_error})

    def produce(self, generation: int, stands: _Headers, records: Sequence[Record]) -> int:
        """One span of as many of `records` as there is space for. Returns how many."""
        span = _Pending(self, generation, records[0].sequence)
        produce, report = self.producer.produce, span.report_primed if self.priming else span.report
        home = self._home.of
        headers: _Headers = [*stands, (HEADER_EPOCH, b""), (HEADER_SEQUENCE, b""), (HEADER_TRACEPARENT, b"")]
        try:
            for sequence, epoch, key, traceparent, value in records:
                # Copied before `produce` returns: one list serves them all.
                headers[2] = (HEADER_EPOCH, b"%d" % epoch)
                headers[3] = (HEADER_SEQUENCE, b"%d" % sequence)
                headers[4] = (HEADER_TRACEPARENT, traceparent)
                produce(CHANGES, value, key, home(key), report, None, 0, headers)
                span.count += 1
        except BufferError:
            pass
        except KafkaException as error:
            refused = records[span.count]
            self._broke(self, _refusal(refused.sequence, len(refused.value), _named(error.args[0])))
        if self.priming:
            self.priming.sent(records[: span.count])
        return span.count

    def take_delivered(self, generation: int) -> list[Span]:
        """The spans of `generation` whose last report has come since the last call."""
        reported, self.reported = self.reported, []
        delivered = []
        for span, count in Counter(reported).items():
            span.delivered += count
            if span.delivered == span.count and span.generation == generation:
                delivered.append(Span(span.first, span.first + span.count - 1))
        return delivered

    def failed(self, reason: str, message: Message) -> None:
        if not self._ending:
            value = message.value() or b""
            self._broke(self, _refusal(Change.FromString(value).sequence, len(value), reason))

    def poll(self) -> int:
        """How many events there were."""
        try:
            return self.producer.poll(0)
        except (KafkaException, SystemError) as error:
            # So the client tells of a fatal error, not by its `error_cb`; a callback that it comes across in
            # the same poll sees it as a SystemError.
            self._broke(self, f"fatal: {error.__cause__ or error}")
            return 0

    def end(self) -> None:
        """Blocking, for a moment. What is still queued is dropped."""
        self._ending = True
        self.producer.purge()
        self.poll()

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._broke(self, f"fatal: {_named(error)}")
        else:
            self._passing_errors(error)


def _named(error: KafkaError) -> str:
    return f"{error.name()}: {error.str()}"


def _refusal(sequence: int, size: int, reason: str) -> str:
    return f"change {sequence} of {size} bytes: {reason}"
