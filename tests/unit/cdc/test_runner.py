"""The runner against fakes: a producer that breaks, reports from before, trouble that passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from cdc.cursor import Acknowledger, Delivered, Span
from cdc.pace import Pace, PacePolicy
from cdc.publisher import Reports
from cdc.record import Record
from cdc.runner import Runner
from cdc.stall import SILENT_S
from cdc.tailer import Identity, Policy, Store, Tailer
from cdc.topic_watch import Topic, TopicWatch
from tollgate.clock import FakeClock
from tollgate.errors import OperationalError
from tollgate.kafka_topics import Refused, Seen, SeenTopic
from tollgate.topics import CHANGES
from tollgate.v1.change_pb2 import Change
from tollgate.v1.shard_pb2 import ApplyStatusResponse, ReadChangesResponse, StatusUpdate
from tollgate.watermark import Watermark

ME = Identity(b"i" * 16, 1)


class FakeSource:
    """A log of `last` changes. Looking for a change moves the clock and not the thread."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.last = 0
        self.acknowledged = 0
        self.failing = ""
        self.closed = False
        self.waits = self.reads = 0

    def watermark(self) -> Watermark:
        return Watermark(*ME, self.last)

    async def wait_for_change(self, seen: Watermark | None, timeout_s: float) -> None:
        self.waits += 1
        self.clock.advance(timeout_s)

    def open(self) -> Store:
        self._fail_when_told("open")
        return Store(0, ME, self.acknowledged)

    def read(self, after: int, up_to: int) -> list[tuple[int, bytes]]:
        self._fail_when_told("read")
        self.reads += 1
        return [
            (
                sequence,
                Change(shard=0, incarnation=ME.incarnation, epoch=1, sequence=sequence).SerializeToString(),
            )
            for sequence in range(after + 1, up_to + 1)
        ]

    def close(self) -> None:
        self.closed = True

    def _fail_when_told(self, what: str) -> None:
        if self.failing == what:
            raise OperationalError(f"{what} failed")


class FakePublisher:
    def __init__(self, on_reports: Reports) -> None:
        self.on_reports = on_reports
        self.broken: str | None = None
        self.awaited = False
        self.topic: Topic | None = None
        self.generation = 0
        self.space = 1_000
        self.published: list[tuple[int, int]] = []
        self.closed = False

    def publish(self, identity: Identity, records: Sequence[Record]) -> int:
        taken = records[: self.space]
        self.published += [(self.generation, record.sequence) for record in taken]
        return len(taken)

    def poll(self) -> None: ...

    def forget(self) -> int:
        self.generation += 1
        return self.generation

    async def restart(self, topic: Topic) -> int:
        self.broken = None
        self.topic = topic
        return self.forget()

    async def close(self, flush_s: float) -> None:
        self.closed = True

    def sequences(self) -> list[int]:
        return [sequence for generation, sequence in self.published if generation == self.generation]


class FakeShard:
    def __init__(self) -> None:
        self.acknowledged = 0

    async def acknowledge(self, identity: Identity, sequence: int) -> bool:
        self.acknowledged = sequence
        return False

    async def read_changes(self, from_sequence: int, limit: int) -> ReadChangesResponse:
        raise OperationalError("down")

    async def apply_status(self, updates: Sequence[StatusUpdate]) -> ApplyStatusResponse:
        return ApplyStatusResponse()


class Bench:
    def __init__(self, pace: Pace | None = None, in_flight_records_max: int = 100) -> None:
        self.clock = FakeClock()
        self.source = FakeSource(self.clock)
        self.shard = FakeShard()
        self.delivered = Delivered()
        self.publishers: list[FakePublisher] = []
        self.seen = Seen(embedded=True, topics={CHANGES: SeenTopic(12, 1, {})})
        self.topics = TopicWatch(lambda: self.seen)
        self.runner = Runner(
            tailer=Tailer(0, Policy()),
            delivered=self.delivered,
            acknowledger=Acknowledger(self.delivered, self.shard),
            source=self.source,
            open_publisher=self._open_publisher,
            shard=self.shard,
            clock=self.clock,
            topics=self.topics,
            in_flight_records_max=in_flight_records_max,
            pace=pace,
        )

    @property
    def publisher(self) -> FakePublisher:
        return self.publishers[0]

    def _open_publisher(self, on_reports: Reports) -> FakePublisher:
        self.publishers.append(FakePublisher(on_reports))
        return self.publishers[-1]

    async def step_until(self, condition: Callable[[], bool]) -> None:
        for _ in range(100):
            if condition():
                return
            self.clock.advance(0.1)
            await self.runner.step()
        raise AssertionError("not within 100 steps")


@pytest.fixture
async def bench() -> Bench:
    bench = Bench()
    await bench.topics.look()
    return bench


async def test_a_broken_producer_is_replaced_and_everything_undelivered_shipped_again(bench: Bench) -> None:
    bench.source.last = 10
    await bench.step_until(lambda: bench.publisher.sequences() == list(range(1, 11)))
    generation = bench.publisher.generation
    bench.publisher.on_reports(generation, [Span(1, 3), Span(5, 5)])
    bench.publisher.broken = "fatal: it said so"
    await bench.step_until(lambda: bench.publisher.sequences() == [4])
    bench.publisher.on_reports(generation, [Span(4, 4), Span(6, 7)])
    assert bench.delivered.prefix == 3, "a report of the broken producer counts for nothing"
    bench.publisher.on_reports(bench.publisher.generation, [Span(4, 4)])
    await bench.step_until(lambda: bench.publisher.sequences() == [4, 5, 6])
    bench.publisher.on_reports(bench.publisher.generation, [Span(5, 6)])
    await bench.step_until(lambda: bench.publisher.sequences() == list(range(4, 11)))
    bench.publisher.on_reports(bench.publisher.generation, [Span(7, 10)])
    await bench.runner.finish(0.0)
    assert bench.shard.acknowledged == 10
    assert bench.source.closed
    assert bench.publisher.closed


async def test_a_full_queue_is_waited_for_and_nothing_is_left_out(bench: Bench) -> None:
    bench.source.last = 10
    bench.publisher.space = 3
    await bench.step_until(lambda: len(bench.publisher.published) == 10)
    assert bench.publisher.sequences() == list(range(1, 11))


async def test_no_more_is_read_than_the_window_holds(bench: Bench) -> None:
    bench.source.last = 1_000
    await bench.step_until(lambda: len(bench.publisher.published) == 100)
    for _ in range(5):
        await bench.runner.step()
    assert len(bench.publisher.published) == 100
    bench.publisher.on_reports(bench.publisher.generation, [Span(1, 50)])
    await bench.step_until(lambda: len(bench.publisher.published) == 150)


async def test_beside_a_shard_at_work_no_more_is_in_flight_than_the_pace_allows() -> None:
    bench = Bench(Pace(PacePolicy(most=100, beside_load=10)))
    await bench.topics.look()
    bench.source.last = 1_000
    for _ in range(20):
        bench.source.last += 1
        bench.clock.advance(0.3)
        await bench.runner.step()
    assert len(bench.publisher.published) == 10
    await bench.step_until(lambda: len(bench.publisher.published) == 100)


async def test_it_is_unready_until_the_store_is_open_and_says_why(bench: Bench) -> None:
    bench.source.failing = "open"
    await bench.runner.step()
    assert bench.runner.not_ready_reason() == "open failed"
    bench.source.failing = ""
    await bench.step_until(lambda: bench.runner.not_ready_reason() is None)


async def test_a_store_that_cannot_be_read_now_is_read_later(bench: Bench) -> None:
    bench.source.last = 3
    bench.source.failing = "read"
    for _ in range(10):
        bench.clock.advance(0.1)
        await bench.runner.step()
    assert bench.publisher.published == []
    bench.source.failing = ""
    # The ladder has reached the shard, which is down: the secondary must still get its turn.
    await bench.step_until(lambda: bench.publisher.sequences() == [1, 2, 3])


async def test_an_idle_tailer_wakes_four_times_a_second_and_looks_at_no_store(bench: Bench) -> None:
    bench.source.last = 10
    await bench.step_until(lambda: bench.publisher.sequences() == list(range(1, 11)))
    bench.publisher.on_reports(bench.publisher.generation, [Span(1, 10)])
    bench.source.waits = bench.source.reads = 0
    ends_at = bench.clock.monotonic() + 10.0
    while bench.clock.monotonic() < ends_at:
        await bench.runner.step()
    assert bench.source.waits <= 41
    assert bench.source.reads == 0


async def test_in_a_catch_up_nothing_is_waited_for_but_room(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def sleep(wait_s: float) -> None:
        slept.append(wait_s)

    bench.source.last = 10_000
    await bench.step_until(lambda: bench.publisher.sequences() == list(range(1, 101)))
    monkeypatch.setattr("cdc.runner.asyncio.sleep", sleep)
    for first in range(1, 5_000, 100):
        bench.publisher.on_reports(bench.publisher.generation, [Span(first, first + 99)])
        assert await bench.runner.step()
    assert slept == []
    assert not await bench.runner.step()
    assert slept == [0.001], "the window is full"


async def test_a_trickle_is_looked_at_once_in_fifty_milliseconds_and_at_once_after_a_pause(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def sleep(wait_s: float) -> None:
        slept.append(wait_s)
        bench.clock.advance(wait_s)

    monkeypatch.setattr("cdc.runner.asyncio.sleep", sleep)
    await bench.step_until(lambda: bench.runner.not_ready_reason() is None)
    bench.clock.advance(1.0)
    slept.clear()
    bench.source.last = 1
    await bench.runner.step()
    assert slept == [], "the first one is read at once"
    bench.source.last = 2
    await bench.runner.step()
    assert slept == [pytest.approx(0.050)]


async def test_that_requests_wait_for_kafka_is_told_to_the_producer(bench: Bench) -> None:
    await bench.runner.step()
    assert not bench.publisher.awaited
    bench.runner.acknowledger.awaited = True
    await bench.runner.step()
    assert bench.publisher.awaited


async def test_a_change_that_is_refused_is_tried_alone_and_the_reason_is_said(bench: Bench) -> None:
    bench.source.last = 10
    await bench.step_until(lambda: len(bench.publisher.published) == 10)
    for _ in range(2):
        bench.publisher.broken = "change 1 of 70000 bytes: Broker: Message size too large"
        await bench.step_until(lambda: bench.publisher.sequences() == [1])
        for _ in range(5):
            await bench.runner.step()
        assert bench.publisher.sequences() == [1], "what follows is not repeated with every try"
        reason = bench.runner.not_ready_reason() or ""
        assert "does not take change 1" in reason
        assert "raise max.message.bytes" in reason
    bench.publisher.on_reports(bench.publisher.generation, [Span(1, 1)])
    assert bench.runner.not_ready_reason() is None


async def test_kafkas_silence_makes_it_unready_until_something_is_delivered(bench: Bench) -> None:
    bench.source.last = 2
    await bench.step_until(lambda: len(bench.publisher.published) == 2)
    assert bench.runner.not_ready_reason() is None
    bench.clock.advance(SILENT_S)
    assert "confirmed nothing for 5 s" in (bench.runner.not_ready_reason() or "")
    bench.publisher.on_reports(bench.publisher.generation, [Span(1, 1)])
    assert bench.runner.not_ready_reason() is None


async def test_nothing_is_shipped_while_the_topic_is_not_as_it_must_be(bench: Bench) -> None:
    good = bench.seen
    bench.seen = Seen(embedded=True, topics={CHANGES: Refused("Kafka has no topic payments.changes")})
    await bench.topics.look()
    bench.source.last = 5
    for _ in range(10):
        await bench.runner.step()
    assert bench.publisher.published == []
    assert "has no topic" in (bench.runner.not_ready_reason() or "")
    bench.seen = good
    await bench.topics.look()
    await bench.step_until(lambda: bench.publisher.sequences() == [1, 2, 3, 4, 5])


async def test_a_topic_that_takes_less_than_before_gets_another_producer(bench: Bench) -> None:
    bench.source.last = 3
    await bench.step_until(lambda: bench.publisher.sequences() == [1, 2, 3])
    assert bench.publisher.topic == Topic(12, 1_048_588)
    bench.seen = Seen(embedded=True, topics={CHANGES: SeenTopic(12, 1, {"max.message.bytes": "50000"})})
    await bench.topics.look()
    await bench.step_until(lambda: bench.publisher.topic == Topic(12, 50_000))
    await bench.step_until(lambda: bench.publisher.sequences() == [1, 2, 3])
