"""The tailer's loop: carries out what `Tailer` decides, and keeps its cursor honest.

Everything with a choice in it is decided in tailer and cursor; here is only I/O in their order. Never gives
up: every failure of a dependency is waited out, with the reason in the log once and in `not_ready_reason` as
long as it lasts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog

from cdc import metrics
from cdc.cursor import Acknowledger, Delivered, Span
from cdc.lag import LagMeter
from cdc.looks import Looks
from cdc.pace import Pace, PacePolicy
from cdc.publisher import ChangePublisher, Reports
from cdc.record import Record
from cdc.shard_client import ShardApi
from cdc.source import Source
from cdc.stall import Stall, action_for
from cdc.tailer import Ask, Idle, Open, Read, Restart, Tailer, Wait
from cdc.topic_watch import UNKNOWN, Topic, TopicWatch
from cdc.window import Window
from tollgate.clock import Clock
from tollgate.errors import OperationalError, TollgateError
from tollgate.growing_wait import GrowingWait
from tollgate.watermark import Watermark

_RESTART_PRODUCER_S_MIN: Final = 0.25
_RESTART_PRODUCER_S_MAX: Final = 5.0
# While there is no room in flight, or a record is not seen yet.
_PAUSE_S_MIN: Final = 0.001
_PAUSE_S_MAX: Final = 0.020
_MEASURE_EVERY_S: Final = 0.25
# From an idle wait, for what is not the watermark: a broken producer, the metrics.
_LOOK_UP_EVERY_S: Final = 0.25

log = structlog.get_logger()


class Runner:
    """One per process. `run` until cancelled; then `finish`."""

    def __init__(
        self,
        *,
        tailer: Tailer,
        delivered: Delivered,
        acknowledger: Acknowledger,
        source: Source,
        open_publisher: Callable[[Reports], ChangePublisher],
        shard: ShardApi,
        clock: Clock,
        topics: TopicWatch,
        in_flight_records_max: int,
        pace: Pace | None = None,
    ) -> None:
        """Without a `pace`, the whole window may be in flight whatever the shard does."""
        self._tailer = tailer
        self._delivered = delivered
        self.acknowledger = acknowledger
        self._source = source
        self._publisher = open_publisher(self.on_reports)
        self._shard = shard
        self._clock = clock
        self._topics = topics
        self._topic = UNKNOWN  # as the producer was told
        self._window = Window(in_flight_records_max)
        self._pace = pace or Pace(PacePolicy(in_flight_records_max, in_flight_records_max))
        self._stall = Stall()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="source")
        self._pause = GrowingWait(_PAUSE_S_MIN, _PAUSE_S_MAX)
        self._generation = 0
        self._restart_wait = GrowingWait(_RESTART_PRODUCER_S_MIN, _RESTART_PRODUCER_S_MAX)
        self._lag = LagMeter()
        self._measure_at = 0.0
        self._looks = Looks()
        self._trouble: str | None = None

    def not_ready_reason(self) -> str | None:
        if self._tailer.halted is not None:
            return self._tailer.halted
        if self._tailer.identity is None:
            return self._trouble or "The shard's store has not been opened yet."
        return self._stalled()

    def _stalled(self) -> str | None:
        """Why Kafka takes nothing, as far as that is known."""
        if self._topics.topic is None:
            return self._topics.trouble
        prefix, in_flight = self._delivered.prefix, self._delivered.in_flight
        return self._stall.reason(self._topics.trouble, prefix, in_flight, self._clock.monotonic())

    def incarnation(self) -> bytes | None:
        """Which store is read, once it is known."""
        return self._tailer.identity.incarnation if self._tailer.identity is not None else None

    def on_reports(self, generation: int, spans: list[Span]) -> None:
        """What is delivered. Reports from before a restart count for nothing."""
        if generation != self._generation:
            return
        moved = self._delivered.reported(spans)
        if moved:
            self._restart_wait.reset()
            self._window.delivered(moved)
            self._stall.moved()
            metrics.DELIVERED.inc(moved)
            self.acknowledger.moved()

    async def run(self) -> None:
        while True:
            if await self.step():
                self._pause.reset()

    async def finish(self, flush_s: float) -> None:
        """Nothing more is read: lets deliveries come in for `flush_s`, then tells the shard. Bounded."""
        await self._publisher.close(flush_s)
        try:
            await self.acknowledger.acknowledge_once()
        except TollgateError as error:
            log.warning("last_acknowledgement_refused", error=error.message)  # repeated after the next start
        await asyncio.get_running_loop().run_in_executor(self._thread, self._source.close)
        self._thread.shutdown()

    async def step(self) -> bool:
        """One decision carried out, waiting included. True when it was work."""
        self._publisher.awaited = self.acknowledger.awaited
        self._publisher.poll()
        if self._publisher.broken is not None:
            await self._replace_broken(self._publisher.broken)
        elif self._topics.topic is not None and self._topics.topic != self._topic:
            await self._restart_producer(self._topics.topic)
        await self._gather()
        now = self._clock.monotonic()
        watermark = self._source.watermark()
        if now >= self._measure_at:
            self._measure_at = now + _MEASURE_EVERY_S
            self._measure(watermark)
        in_flight = self._tailer.position - self._delivered.prefix
        window = min(self._window.size, self._pace.window)
        room = 0 if self._topics.topic is None else window - in_flight
        action = self._tailer.next(watermark, room, now, is_narrow=self._window.is_narrow)
        worked = False
        match action:
            case Open():
                worked = await self._open(action)
            case Read():
                worked = await self._read(action, watermark)
            case Ask():
                worked = await self._ask(action)
            case Idle():
                await self._source.wait_for_change(watermark, _LOOK_UP_EVERY_S)
                return False
            case Wait():
                pass
        if not worked:
            await asyncio.sleep(self._pause.next())
        return worked

    async def _open(self, action: Open) -> bool:
        loop = asyncio.get_running_loop()
        try:
            store = await loop.run_in_executor(self._thread, self._source.open)
        except OperationalError as error:
            self._tailer.not_opened(self._clock.monotonic())
            self._say("store_not_opened", error.message)
            return False
        metrics.REOPENS.labels(action.reason).inc()
        restart = self._tailer.opened(store, action.watermark, self._clock.monotonic())
        self._trouble = None
        if restart is not None:
            self._restart_from(restart)
        self._tell_if_halted()
        return restart is not None

    async def _read(self, action: Read, watermark: Watermark | None) -> bool:
        loop = asyncio.get_running_loop()
        try:
            rows = await loop.run_in_executor(self._thread, self._source.read, action.after, action.up_to)
        except OperationalError as error:
            self._tailer.unreadable()
            self._say("store_not_read", error.message)
            return False
        now = self._clock.monotonic()
        if watermark is not None and action.up_to == watermark.sequence:
            self._looks.found(max(1, len(rows)), now, awaited=self.acknowledger.awaited)
        return self._publish(self._tailer.seen(action, rows, now))

    async def _gather(self) -> None:
        """Who is behind does not wait."""
        wait_s = self._looks.next_at - self._clock.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    async def _ask(self, action: Ask) -> bool:
        metrics.ASKED.inc()
        try:
            answer = await self._shard.read_changes(action.from_sequence, action.limit)
        except OperationalError as error:
            self._tailer.unanswered(self._clock.monotonic())
            self._say("shard_not_asked", error.message)
            return False
        answered = self._tailer.answered(answer, self._clock.monotonic())
        self._tell_if_halted()
        if isinstance(answered, Restart):
            self._restart_from(answered)
            return True
        return self._publish(answered)

    def _publish(self, records: list[Record]) -> bool:
        identity = self._tailer.identity
        if not records or identity is None:
            return False
        self._trouble = None
        count = self._publisher.publish(identity, records)
        if count == 0:
            return False  # no space: reports make some
        sent = records[:count]
        self._delivered.sent(sent)
        self._tailer.published(sent[-1].sequence)
        metrics.PRODUCED.inc(count)
        return True

    def _restart_from(self, restart: Restart) -> None:
        self._generation = self._publisher.forget()
        self._delivered.restart(restart.identity, restart.acknowledged)
        self.acknowledger.restart(restart.identity, restart.acknowledged)
        metrics.EPOCH.set(restart.identity.epoch)
        log.info(
            "reading_from_the_cursor",
            incarnation=restart.identity.incarnation.hex(),
            epoch=restart.identity.epoch,
            acknowledged=restart.acknowledged,
        )

    async def _replace_broken(self, reason: str) -> None:
        """Tried again alone, then with more; between the tries longer and longer."""
        prefix = self._delivered.prefix
        log.error("producer_broken", reason=reason, delivered=prefix, action=action_for(reason))
        metrics.PRODUCER_RESTARTS.inc()
        self._stall.refused(reason, prefix)
        self._window.failed()
        await asyncio.sleep(self._restart_wait.next())
        await self._topics.look()
        await self._restart_producer(self._topics.topic or self._topic)

    async def _restart_producer(self, topic: Topic) -> None:
        """What the old producer had not delivered is read and shipped again; its late reports count for
        nothing."""
        self._topic = topic
        self._generation = await self._publisher.restart(topic)
        self._delivered.forget_in_flight()
        self._tailer.rewind(self._delivered.prefix)

    def _tell_if_halted(self) -> None:
        if self._tailer.halted is not None and self._tailer.halted != self._trouble:
            self._trouble = self._tailer.halted
            log.error("tailer_halted", reason=self._tailer.halted)

    def _say(self, event: str, message: str) -> None:
        """Once for each new trouble, not once for each try."""
        if message != self._trouble:
            self._trouble = message
            log.warning(event, error=message)

    def _measure(self, watermark: Watermark | None) -> None:
        identity, delivered = self._tailer.identity, self._delivered
        metrics.HALTED.set(self._tailer.halted is not None)
        metrics.STALLED.set(self._stalled() is not None)
        metrics.STUCK_AT.set(self._stall.stuck_at)
        metrics.ACKNOWLEDGED.set(self.acknowledger.acknowledged)
        metrics.IN_FLIGHT_RECORDS.set(delivered.in_flight)
        metrics.IN_FLIGHT_BYTES.set(delivered.in_flight_bytes)
        if watermark is not None and identity is not None:
            self._pace.look(watermark.sequence, delivered.prefix)
            lag = self._lag.measure(watermark.sequence, delivered, self._clock.now_us())
            metrics.LAG_RECORDS.set(lag.records)
            metrics.LAG_BYTES.set(lag.bytes)
            metrics.LAG_SECONDS.set(lag.seconds)
