"""Builds the processor from its settings, runs it, and ends it in order.

Start: /readyz answers from the first moment and says what is being waited for; Postgres, the migrations and
Kafka are waited for without an end. Stop, within 10 s: no more changes, no more claims, the calls in flight
come home and are committed, then everything is closed. What doesn't come home in time is left to its lease.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from random import SystemRandom
from typing import Any, Final

import structlog

from processor import metrics
from processor.budget import Budget, BudgetPolicy, SharedBudget
from processor.commit import Committed, Committer
from processor.dispatch import Dispatcher, DispatchPolicy
from processor.first_calls import Beginnings
from processor.gauges import WaitingGauges
from processor.inbox import Inbox, PspWebhooks
from processor.intake import Intake
from processor.judgement import Judge
from processor.kafka.consumer import ChangeConsumer
from processor.kafka.producer import Publisher
from processor.kafka.retention import forget_changes
from processor.ledger import start_ledger
from processor.outcome import RetryPolicy
from processor.patience import Health, persist
from processor.pipeline import Pipeline, Timing
from processor.psp.adyen.notifications import read_adyen_notification
from processor.psp.interface import PspAdapter
from processor.psp.simulator import SimulatorPsp
from processor.psp.simulator_webhook import read_simulator_webhook
from processor.psp.stripe.events import read_stripe_event
from processor.psp.webhook import ReadWebhook
from processor.rationed import RationedDispatcher
from processor.relay import Relay, RelayPolicy
from processor.ring import RingOwners
from processor.risk import RiskAssessor, RiskSettings, RuleAssessor, Rules
from processor.risk.remote import RemoteAssessor
from processor.risk.rules_file import load_rules
from processor.risk.velocity import SharedCounts
from processor.settings import AdyenSection, ProcessorSettings, StripeSection, secret_in
from processor.storage.database import Pool, connect, open_pool
from processor.storage.merchants import upsert_merchant
from processor.storage.migrate import migrate
from tollgate.clock import Clock, SystemClock
from tollgate.collecting import collect_seldom
from tollgate.errors import OperationalError
from tollgate.ids import api_key_hash
from tollgate.kafka_topics import look, unsafe
from tollgate.ops_http import serve_ops
from tollgate.topics import CHANGES, topic_specs

_DRAIN_S: Final = 5.0  # the longest PSP call; the whole stop takes at most 10 s
_CLOSE_S: Final = 1.0
_PROBE_EVERY_S: Final = 2.0
_LOOK_S: Final = 2.0
_LOOK_EVERY_S: Final = 30.0
_FORGET_EVERY_S: Final = 600.0

_READERS: Final[dict[str, ReadWebhook]] = {
    "adyen": read_adyen_notification,
    "simulator": read_simulator_webhook,
    "stripe": read_stripe_event,
}

_log = structlog.get_logger()


async def run(settings: ProcessorSettings) -> None:
    """Returns after SIGTERM or SIGINT. Raises ConfigurationError, or what broke a part that must not."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    rules = load_rules(settings.risk.rules_file)
    health = Health()
    health.report("start", "The processor is starting.")
    async with serve_ops(settings.processor.ops, health.not_ready_reason):
        pool = await _unless(stop, _open(settings, health))
        if pool is None:
            return
        async with AsyncExitStack() as stack:
            stack.push_async_callback(_close_pool, pool)
            await _serve(settings, rules, pool, health, stop, stack)
    _log.info("stopped")


async def _serve(
    settings: ProcessorSettings,
    rules: Rules,
    pool: Pool,
    health: Health,
    stop: asyncio.Event,
    stack: AsyncExitStack,
) -> None:
    section, clock = settings.processor, SystemClock()
    publisher = Publisher(settings.kafka_bootstrap)
    stack.push_async_callback(asyncio.to_thread, publisher.close)
    adapters = _adapters(settings)
    for adapter in adapters.values():
        stack.push_async_callback(adapter.close)
    owners = RingOwners(settings.ring_file, clock)

    relay_policy = RelayPolicy(section.relay_batch_max, section.relay_poll_interval_s)
    open_session = partial(connect, settings.postgres_dsn)
    relay = Relay(open_session, publisher, owners.owner, relay_policy, clock, health)

    def on_committed(committed: Committed) -> None:
        relay.wake()
        for _conclusion, decision in committed:
            if decision and decision.claim_after_s is not None:
                dispatcher.wake_in(decision.claim_after_s)

    counting = SharedCounts(pool, rules.velocity)
    assessor = _assessor(settings.risk, rules, counting, stack)
    committer = Committer(pool, clock, health, on_committed)
    pipeline = Pipeline(
        pool=pool,
        committer=committer,
        adapters=adapters,
        assessor=assessor,
        judge=Judge(
            RetryPolicy(sends_max=section.sends_max),
            clock,
            SystemRandom().random,
            lambda psp: adapters[psp].plan,
        ),
        timing=Timing(section.lease_s, settings.psp.longest_call_s()),
        clock=clock,
        health=health,
    )
    dispatch_policy = DispatchPolicy(
        section.concurrency,
        section.claim_batch_max,
        section.poll_interval_s,
        section.lease_s,
        tuple(settings.budgets()),
    )
    dispatcher = Dispatcher(pool, pipeline, dispatch_policy, clock, health)
    lanes: list[Dispatcher | RationedDispatcher] = [dispatcher]
    lanes += [
        RationedDispatcher(pool, pipeline, budget, dispatch_policy, clock, health)
        for budget in _budgets(settings, pool, clock)
    ]

    inbox = Inbox(pool, _webhooks(adapters), clock, health, on_committed)

    def on_stored() -> None:
        for lane in lanes:
            lane.wake()
        relay.wake()

    server = await start_ledger(section.grpc, pool, owners.owner, clock, on_stored)
    stack.push_async_callback(server.stop, _CLOSE_S)
    beginnings = Beginnings(pipeline, dispatcher, settings.budgets(), section.lease_s, clock)
    intake = Intake(pool, publisher, clock, on_stored, inbox.wake, beginnings, relay.wake)
    consumer = ChangeConsumer(
        settings.kafka_bootstrap, intake.handle, section.intake_batch_max, section.instance
    )
    consumer.start()
    async with _running(committer.run()) as committing, _running(relay.run()) as relaying:
        async with (
            _running(_run_all(lanes)) as dispatching,
            _running(inbox.run()) as hearing,
            _running(_watch_kafka(publisher, health)) as watching,
            _running(_watch_topics(settings.kafka_bootstrap, health)) as looking,
            _running(_forget_changes(settings, clock)) as forgetting,
            _running(WaitingGauges(settings.postgres_dsn, clock, section.lease_s).run()) as counting_waits,
            _running(counting.run() if rules.velocity else stop.wait()) as counted,
        ):
            collect_seldom()
            health.report("start", None)
            _log.info("ready", grpc=section.grpc, ops=section.ops)
            await _first_to_end(
                stop,
                [
                    committing,
                    relaying,
                    dispatching,
                    hearing,
                    watching,
                    looking,
                    forgetting,
                    counting_waits,
                    counted,
                    consumer.failed,
                ],
            )
            health.report("start", "The processor is stopping.")
            await consumer.stop()
            for lane in lanes:
                lane.stop()
            await asyncio.wait({dispatching}, timeout=_CLOSE_S)
        await asyncio.gather(*(lane.drain(_DRAIN_S) for lane in lanes))


async def _open(settings: ProcessorSettings, health: Health) -> Pool:
    """Waits until Postgres is there, its schema up to date and the development merchant known."""

    async def opened() -> Pool:
        applied = await asyncio.to_thread(migrate, settings.postgres_dsn)
        if applied:
            _log.info("migrated", applied=applied)
        return await open_pool(settings.postgres_dsn, settings.processor.pool_size_max)

    pool = await persist(health, "postgres", opened)
    development = settings.development
    if development.api_key is not None and development.merchant is not None:
        merchant, key_hash = development.merchant, api_key_hash(development.api_key)
        await persist(
            health, "postgres", lambda: upsert_merchant(pool, merchant, settings.psp.default, key_hash)
        )
    return pool


def _adapters(settings: ProcessorSettings) -> dict[str, PspAdapter]:
    connections_max = settings.processor.concurrency
    adapters: list[PspAdapter] = []
    if (simulator := settings.psp.simulator) is not None:
        adapters.append(
            SimulatorPsp(simulator.url, simulator.timeout_s, connections_max, simulator.replayed_s_max)
        )
    if (adyen := settings.psp.adyen) is not None:
        adapters.append(_adyen(adyen, connections_max))
    if (stripe := settings.psp.stripe) is not None:
        adapters.append(_stripe(stripe, connections_max))
    return {adapter.name: adapter for adapter in adapters}


def _adyen(section: AdyenSection, connections_max: int) -> PspAdapter:
    """Its library takes 0.3 s to import: whoever doesn't use it doesn't wait for it."""
    from processor.psp.adyen.adapter import AdyenPsp
    from processor.psp.adyen.library import AdyenAccount

    api_key = secret_in("psp.adyen.api_key", section.api_key, section.api_key_file)
    account = AdyenAccount(
        api_key, section.merchant_account, section.return_url, section.live_prefix, section.url
    )
    return AdyenPsp(account, section.timeout_s, connections_max, section.replayed_s_max)


def _stripe(section: StripeSection, connections_max: int) -> PspAdapter:
    """Its library takes 0.4 s to import: whoever doesn't use it doesn't wait for it."""
    from processor.psp.stripe.adapter import StripePsp

    return StripePsp(
        secret_in("psp.stripe.api_key", section.api_key, section.api_key_file),
        section.url,
        section.timeout_s,
        live=section.live,
        return_url=section.return_url,
        connections_max=connections_max,
    )


def _webhooks(adapters: Mapping[str, PspAdapter]) -> dict[str, PspWebhooks]:
    return {psp: PspWebhooks(read, adapters[psp].plan) for psp, read in _READERS.items() if psp in adapters}


def _budgets(settings: ProcessorSettings, pool: Pool, clock: Clock) -> list[Budget]:
    """A reservation begins at most half a lease ahead: the claim that waits for it is still held then."""
    horizon_s = settings.processor.lease_s / 2
    for psp, per_second in settings.budgets().items():
        metrics.BUDGET_PER_SECOND.labels(psp).set(per_second)
        _log.info("budget", psp=psp, per_second=per_second)
    return [
        SharedBudget(pool, psp, BudgetPolicy(per_second, horizon_s), clock)
        for psp, per_second in settings.budgets().items()
    ]


async def _run_all(lanes: Sequence[Dispatcher | RationedDispatcher]) -> None:
    """Until each is stopped, or one breaks."""
    async with asyncio.TaskGroup() as group:
        for lane in lanes:
            group.create_task(lane.run())


def _assessor(
    risk: RiskSettings, rules: Rules, counting: SharedCounts, stack: AsyncExitStack
) -> RiskAssessor:
    """The rules in this process, or the service that runs them in its own."""
    if risk.address is None:
        return RuleAssessor(risk.decline_at, rules, counting, risk.timeout_s)
    remote = RemoteAssessor(risk.address, risk.timeout_s)
    stack.push_async_callback(remote.close)
    return remote


async def _watch_kafka(publisher: Publisher, health: Health) -> None:
    """Only for /readyz: the clients themselves reconnect for ever."""
    while True:
        health.report("kafka", await asyncio.to_thread(publisher.probe, CHANGES))
        await asyncio.sleep(_PROBE_EVERY_S)


async def _watch_topics(bootstrap: str, health: Health) -> None:
    """Only for /readyz and the log: what is in Postgres goes on, and a change that is read was confirmed."""
    names = [spec.name for spec in topic_specs(embedded=True)]
    said: list[str] = []
    while True:
        try:
            wrong = unsafe(await asyncio.to_thread(look, bootstrap, names, _LOOK_S))
        except OperationalError:
            pass  # Kafka is away, which the probe says
        else:
            detail = f"Kafka's topics are not as they must be: {'; '.join(wrong)}. Correct them by hand."
            health.report("topics", detail if wrong else None)
            if wrong and wrong != said:
                _log.error("topics_unsafe", detail=detail)
            said = wrong
        await asyncio.sleep(_LOOK_EVERY_S)


async def _forget_changes(settings: ProcessorSettings, clock: Clock) -> None:
    """Once in a while; what fails is tried again the next time."""
    while True:
        await asyncio.sleep(_FORGET_EVERY_S)
        before_ms = clock.now_us() // 1000 - settings.processor.changes_kept_s * 1000
        try:
            cut = await asyncio.to_thread(forget_changes, settings.kafka_bootstrap, before_ms)
            _log.debug("changes_forgotten", partitions=cut)
        except OperationalError as error:
            _log.warning("changes_not_forgotten", detail=error.message)


async def _unless(stop: asyncio.Event, opening: Coroutine[Any, Any, Pool]) -> Pool | None:
    """What `opening` comes to, or None when the stop comes first."""
    async with _running(opening) as task, _running(stop.wait()) as stopped:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None


async def _first_to_end(stop: asyncio.Event, parts: Sequence[asyncio.Future[Any]]) -> None:
    """Returns at the stop. A part that ends before is broken: its error is raised, the process ends."""
    async with _running(stop.wait()) as stopped:
        done, _ = await asyncio.wait({stopped, *parts}, return_when=asyncio.FIRST_COMPLETED)
        for part in done - {stopped}:
            part.result()


@asynccontextmanager
async def _running(part: Coroutine[Any, Any, Any]) -> AsyncIterator[asyncio.Task[Any]]:
    """A task for the body's time: cancelled and awaited after it."""
    task = asyncio.create_task(part)
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task})


async def _close_pool(pool: Pool) -> None:
    try:
        async with asyncio.timeout(_CLOSE_S):
            await pool.close()
    except TimeoutError:
        pool.terminate()
