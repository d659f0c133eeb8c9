"""Builds one cdc process from its settings, runs its two tasks, and ends them in order.

The order of the end: reading stops, what is in flight gets a moment, what was delivered is acknowledged, the
status offset is committed. Every step is bounded; a second signal is not needed.
"""

from __future__ import annotations

import asyncio
import signal
from functools import partial
from typing import Final

import structlog

from cdc.bell import FileBell
from cdc.cursor import Acknowledger, Delivered
from cdc.dead_letters import KafkaDeadLetters
from cdc.ledger_client import LedgerClient
from cdc.pace import Pace, PacePolicy
from cdc.patient_shard import PatientShard
from cdc.publisher import KafkaPublisher, PublisherPolicy
from cdc.runner import Runner
from cdc.settings import Settings
from cdc.shard_client import ShardClient
from cdc.source import RocksSource
from cdc.status_feed import StatusFeed
from cdc.status_refresh import LedgerRefresh, NoRefresh
from cdc.status_topic import KafkaStatusSource, StatusSource
from cdc.tailer import Policy, Tailer
from cdc.topic_watch import TopicWatch
from tollgate.clock import SystemClock
from tollgate.kafka_topics import look
from tollgate.ops_http import serve_ops
from tollgate.topics import CHANGES

FLUSH_S: Final = 3.0
LOOK_S: Final = 2.0  # the end of the process may have to wait for one

log = structlog.get_logger()


async def serve(settings: Settings) -> None:
    """Runs until SIGTERM or SIGINT. Raises what no retry can mend."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    clock = SystemClock()
    shard = ShardClient(settings.shard.grpc)
    bell = FileBell()
    source = RocksSource(settings.shard.data_dir, clock, bell)
    topics = TopicWatch(partial(look, settings.kafka_bootstrap, [CHANGES], LOOK_S))
    runner = _runner(settings, clock, shard, source, topics)
    ledger = LedgerClient(settings.ledger.target_list)
    feed = _feed(settings, clock, shard, runner, ledger)
    acknowledger = runner.acknowledger
    async with serve_ops(settings.cdc.ops, runner.not_ready_reason):
        log.info("started", shard=settings.shard.id, ops=settings.cdc.ops)
        tasks: list[asyncio.Task[None]] = [
            asyncio.create_task(runner.run(), name="tailer"),
            asyncio.create_task(topics.run(), name="topic watch"),
            asyncio.create_task(acknowledger.run(), name="acknowledger"),
            asyncio.create_task(feed.run(), name="status feed"),
        ]
        stopping = asyncio.create_task(_until(stop), name="stop")
        ended, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await runner.finish(FLUSH_S)
        bell.close()
        await shard.close()
        await ledger.close()
    for task in ended - {stopping}:
        task.result()  # a task never ends by itself but by an error that nobody foresaw
    log.info("stopped")


async def _until(stop: asyncio.Event) -> None:
    await stop.wait()


def _runner(
    settings: Settings, clock: SystemClock, shard: ShardClient, source: RocksSource, topics: TopicWatch
) -> Runner:
    delivered = Delivered()
    policy = PublisherPolicy(
        bootstrap=settings.kafka_bootstrap,
        shard=settings.shard.id,
        in_flight_records_max=settings.cdc.in_flight_records_max,
        in_flight_kib_max=settings.cdc.in_flight_kib_max,
        linger_ms=settings.cdc.linger_ms,
    )
    window, batch = settings.cdc.in_flight_records_max, settings.cdc.batch_records_max
    beside_load = min(window, settings.cdc.in_flight_beside_load_max)
    room_min = min(batch, max(1, window // 10), max(1, beside_load // 2))
    return Runner(
        tailer=Tailer(settings.shard.id, Policy(batch, room_records_min=room_min)),
        delivered=delivered,
        acknowledger=Acknowledger(delivered, shard),
        source=source,
        open_publisher=lambda on_reports: KafkaPublisher(policy, on_reports, clock),
        shard=shard,
        clock=clock,
        topics=topics,
        in_flight_records_max=window,
        pace=Pace(PacePolicy(window, beside_load)),
    )


def _feed(
    settings: Settings, clock: SystemClock, shard: ShardClient, runner: Runner, ledger: LedgerClient
) -> StatusFeed:
    applying = PatientShard(shard)
    refresh = LedgerRefresh(settings.shard.id, ledger, applying) if settings.ledger.targets else NoRefresh()

    def open_source(incarnation: bytes) -> StatusSource:
        return KafkaStatusSource(
            bootstrap=settings.kafka_bootstrap,
            shard=settings.shard.id,
            incarnation=incarnation,
            records_max=settings.cdc.status_batch_records_max,
            clock=clock,
        )

    return StatusFeed(
        incarnation=runner.incarnation,
        open_source=open_source,
        shard=applying,
        refresh=refresh,
        dead_letters=KafkaDeadLetters(settings.kafka_bootstrap),
    )
