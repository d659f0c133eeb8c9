"""Reports counted span by span, and a producer that is polled no more often than it is worth."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError

from cdc import publisher
from cdc.cursor import Span
from cdc.home import Home
from cdc.priming import Priming
from cdc.publisher import KafkaPublisher, PublisherPolicy
from cdc.record import Record
from cdc.tailer import Identity
from cdc.topic_watch import UNKNOWN, Topic
from tollgate.clock import FakeClock
from tollgate.v1.change_pb2 import Change

ME = Identity(b"i" * 16, 1)
POLICY = PublisherPolicy(
    bootstrap="nowhere:1", shard=3, in_flight_records_max=1_000, in_flight_kib_max=1_024, linger_ms=0.5
)
UNKNOWN_TOPIC = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)

Report = Callable[[KafkaError | None, Any], None]


class FakeMessage:
    def __init__(self, value: bytes, offset: int | None) -> None:
        self._value = value
        self._offset = offset

    def offset(self) -> int | None:
        return self._offset

    def value(self) -> bytes:
        return self._value


class FakeProducer:
    """Takes `space` messages; tells of those that are `delivered`, in a poll."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.space = 1_000
        self.queued: list[tuple[bytes, Report, list[tuple[str, bytes]]]] = []
        self.due: list[tuple[int, KafkaError | None, int | None]] = []
        self.left = 0
        self.polls = 0

    def produce(
        self,
        topic: str,
        value: bytes,
        key: bytes,
        partition: int,
        callback: Report,
        on_delivery: None,
        timestamp: int,
        headers: list[tuple[str, bytes]],
    ) -> None:
        if self.left == self.space:
            raise BufferError
        self.queued.append((value, callback, list(headers)))
        self.left += 1

    def delivered(self, *indices: int, error: KafkaError | None = None, offset: int | None = 7) -> None:
        self.due += [(index, error, offset) for index in indices]

    def poll(self, timeout: float) -> int:
        self.polls += 1
        due, self.due = self.due, []
        for index, error, offset in due:
            value, report, _ = self.queued[index]
            self.left -= 1
            report(error, FakeMessage(value, offset))
        return len(due)

    def flush(self, timeout: float) -> int:
        self.poll(0)
        return self.left

    def purge(self) -> None:
        self.queued.clear()
        self.left = 0

    def __len__(self) -> int:
        return self.left


class Bench:
    """`loop_s` is what the publisher's timers are told to wait, and nothing ever runs by itself."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(publisher, "Producer", FakeProducer)
        self.told: list[tuple[int, Span]] = []
        self.waits_s: list[float] = []
        loop = asyncio.get_running_loop()

        def call_later(wait_s: float, call: Callable[[], None]) -> asyncio.TimerHandle:
            self.waits_s.append(wait_s)
            return asyncio.TimerHandle(0.0, call, (), loop)

        monkeypatch.setattr(loop, "call_later", call_later)
        self.publisher = KafkaPublisher(POLICY, self._on_reports, FakeClock())
        self.publisher._line = self.publisher._new_line(Topic(12, 1_000_000))
        self.publisher._line.priming = Priming(Home(POLICY.shard, 0))  # nothing to prove

    @property
    def producer(self) -> FakeProducer:
        return cast("FakeProducer", self.publisher._line.producer)

    def publish(self, first: int, last: int) -> int:
        return self.publisher.publish(ME, [record(sequence) for sequence in range(first, last + 1)])

    def _on_reports(self, generation: int, spans: list[Span]) -> None:
        self.told += [(generation, span) for span in spans]


def record(sequence: int) -> Record:
    value = Change(sequence=sequence).SerializeToString()
    return Record(sequence, 7, b"acme/checkout-%d" % sequence, b"00-trace", value)


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


async def test_a_span_is_told_when_the_last_report_of_it_has_come_and_not_before(bench: Bench) -> None:
    assert bench.publish(1, 250) == 250
    bench.producer.delivered(*range(99), 249, *range(100, 200))
    bench.publisher.poll()
    assert bench.told == [(0, Span(101, 200))]
    bench.producer.delivered(99, *range(200, 249))
    bench.publisher.poll()
    assert sorted(bench.told) == [(0, Span(1, 100)), (0, Span(101, 200)), (0, Span(201, 250))]
    bench.publisher.poll()
    assert len(bench.told) == 3, "each once"


async def test_every_record_has_the_headers_of_its_own(bench: Bench) -> None:
    bench.publish(8, 9)
    assert [dict(headers) for _, _, headers in bench.producer.queued] == [
        {
            "shard": b"3",
            "incarnation": ME.incarnation.hex().encode(),
            "epoch": b"7",
            "seq": b"%d" % sequence,
            "traceparent": b"00-trace",
        }
        for sequence in (8, 9)
    ]


async def test_a_full_queue_takes_a_shorter_span_and_the_rest_later(bench: Bench) -> None:
    bench.producer.space = 130
    assert bench.publish(1, 250) == 130
    bench.producer.delivered(*range(130))
    bench.publisher.poll()
    assert bench.told == [(0, Span(1, 100)), (0, Span(101, 130))]
    assert bench.publish(131, 250) == 120


async def test_a_queue_without_any_space_tells_nothing(bench: Bench) -> None:
    bench.producer.space = 0
    assert bench.publish(1, 10) == 0
    bench.publisher.poll()
    assert bench.told == []


async def test_reports_from_before_a_restart_are_dropped(bench: Bench) -> None:
    bench.publish(1, 2)
    assert bench.publisher.forget() == 1
    bench.publish(1, 3)
    bench.producer.delivered(*range(5))
    bench.publisher.poll()
    assert bench.told == [(1, Span(1, 3))]


async def test_a_failed_delivery_breaks_the_producer_and_names_the_change(bench: Bench) -> None:
    bench.publish(40, 50)
    bench.producer.delivered(0, 1)
    bench.producer.delivered(2, error=UNKNOWN_TOPIC)
    bench.publisher.poll()
    assert "change 42 of 2 bytes: UNKNOWN_TOPIC_OR_PART" in str(bench.publisher.broken)
    assert bench.told == []
    assert bench.publish(51, 60) == 0
    broken = bench.producer
    assert await bench.publisher.restart(UNKNOWN) == 1
    assert bench.publisher.broken is None
    assert bench.producer is not broken


async def test_a_success_without_an_offset_is_none(bench: Bench) -> None:
    bench.publish(1, 3)
    bench.producer.delivered(0, 2)
    bench.producer.delivered(1, offset=None)
    bench.publisher.poll()
    assert "change 2 of 2 bytes: success without an offset" in str(bench.publisher.broken)
    assert bench.told == []


async def test_what_is_delivered_in_the_last_moment_is_told(bench: Bench) -> None:
    bench.publish(1, 3)
    bench.producer.delivered(0, 1, 2)
    await bench.publisher.close(1.0)
    assert bench.told == [(0, Span(1, 3))]


async def test_nothing_in_flight_is_nothing_to_poll_for(bench: Bench) -> None:
    bench.publisher.poll()
    assert bench.waits_s == []
    bench.publish(1, 3)
    assert bench.waits_s == [0.025]
    bench.producer.delivered(0, 1, 2)
    bench.publisher.poll()
    assert bench.waits_s == [0.025]


async def test_what_requests_wait_for_is_polled_each_millisecond(bench: Bench) -> None:
    bench.publisher.awaited = True
    bench.publish(1, 3)
    assert bench.waits_s == [0.001]


async def test_a_kafka_that_is_silent_is_polled_less_often_and_as_before_once_it_answers(
    bench: Bench,
) -> None:
    bench.publisher.awaited = True
    bench.publish(1, 3)
    for _ in range(300):
        bench.publisher.poll()
    assert bench.waits_s[200] == 0.001
    assert bench.waits_s[-1] == 0.025
    bench.producer.delivered(0)
    bench.publisher.poll()
    assert bench.waits_s[-1] == 0.001
