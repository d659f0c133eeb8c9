"""The relay: unpublished outbox rows to Kafka, at least once, in order within a payment.

1. A pass reads the oldest unpublished rows of the slices that this relay holds.
2. Every version becomes an event; the newest of each payment becomes a StatusUpdate for every shard that
   shipped it and for the ring's owner. A payment that has just begun to be processed is left for a moment:
   mostly its end is near, and is told in the same pass, with one StatusUpdate. Shards that are owed a resend
   get the payment as it stands.
3. All are produced and their delivery reports awaited.
4. What was delivered is marked, unless anything of the same payment failed: that is sent again whole.

A crash between 3 and 4 repeats deliveries; consumers know a version that they have seen. The slices' locks,
the reads and the marks share one session: a relay that lost its locks can't mark either. A relay that stands
still loses its session, and its slices go to the living.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from processor import metrics
from processor.event import event_record, status_record
from processor.kafka.producer import Outgoing, Publishing
from processor.patience import Health, patient_wait
from processor.storage.database import Connection, keep_alive
from processor.storage.outbox import (
    Entry,
    Resend,
    mark_published,
    mark_resent,
    owed_resends,
    prune_published,
    unpublished,
)
from processor.storage.slices import SliceLease
from tollgate import topics
from tollgate.clock import Clock
from tollgate.errors import OperationalError
from tollgate.ids import payment_key
from tollgate.pace import Pace
from tollgate.status import NAME, PENDING
from tollgate.v1.payment_pb2 import Payment

_REFRESH_S: Final = 1.0
_STEADY_S: Final = 10.0  # an interruption after so long is a new one: its pauses begin small again
_RETENTION_US: Final = 30 * 24 * 60 * 60 * 1_000_000  # as long as payments.events keeps them
# Of a payment that has moved on meanwhile a shard gets one status in place of two.
PACE: Final = Pace(each_s=0.002, most_s=0.2)
_HELD_US: Final = 500_000  # a quarter of what a client waits between two looks
_PRUNE_BATCH: Final = 10_000  # a second: more than the rate at which rows come

_log = structlog.get_logger()

OwnerOf = Callable[[str], int | None]


@dataclass(frozen=True, slots=True)
class RelayPolicy:
    batch_max: int
    poll_interval_s: float


@dataclass(slots=True)
class Deliveries:
    """What a pass sends, and which records stand for which outbox entry or resend."""

    records: list[Outgoing] = field(default_factory=list)
    of_entry: list[tuple[Entry, list[int]]] = field(default_factory=list)
    of_resend: list[tuple[Resend, list[int]]] = field(default_factory=list)


def plan_deliveries(
    entries: Sequence[Entry], resends: Sequence[Resend], owner_of: OwnerOf, now_us: int
) -> Deliveries:
    """Pure. Entries come in version order within a payment; a StatusUpdate stands for all up to its
    version.
    """
    newest = {(entry.merchant, entry.checkout_id): entry.version for entry in entries}
    plan = Deliveries()
    for entry in entries:
        payment = Payment.FromString(entry.snapshot)
        event = event_record(payment, entry.event_type, entry.operation_id)
        outgoing = [_acceptance_of(payment), event] if entry.with_acceptance else [event]
        if newest[entry.merchant, entry.checkout_id] == entry.version:
            owner = owner_of(entry.checkout_id)
            shards = {*entry.shards, *(() if owner is None else (owner,))}
            outgoing += [status_record(event.key, entry.snapshot, shard, now_us) for shard in sorted(shards)]
        plan.of_entry.append((entry, _append(plan.records, outgoing)))
    for resend in resends:
        payment = resend.payment
        key = payment_key(payment.merchant, payment.checkout_id).encode()
        record = status_record(key, payment.SerializeToString(), resend.shard, now_us)
        plan.of_resend.append((resend, _append(plan.records, [record])))
    return plan


def delivered_entries(plan: Deliveries, delivered: Sequence[bool]) -> list[Entry]:
    """Pure. Those to be marked. A payment of which anything failed is sent again whole, in order."""
    broken = {
        (entry.merchant, entry.checkout_id)
        for entry, indexes in plan.of_entry
        if not all(delivered[index] for index in indexes)
    }
    return [entry for entry, _ in plan.of_entry if (entry.merchant, entry.checkout_id) not in broken]


class Relay:
    """One a processor. `wake` after every commit that wrote an outbox row."""

    def __init__(
        self,
        open_session: Callable[[], Awaitable[Connection]],
        publisher: Publishing,
        owner_of: OwnerOf,
        policy: RelayPolicy,
        clock: Clock,
        health: Health,
    ) -> None:
        """`open_session` raises OperationalError while Postgres can't be reached."""
        self._open_session = open_session
        self._publisher = publisher
        self._owner_of = owner_of
        self._policy = policy
        self._clock = clock
        self._health = health
        self._woken = asyncio.Event()

    def wake(self) -> None:
        self._woken.set()

    async def run(self) -> None:
        """Until cancelled. A lost session is opened anew, and the locks with it."""
        wait = patient_wait()
        while True:
            try:
                connection = await self._open_session()
            except OperationalError as error:
                self._health.report("relay", error.message)
                await asyncio.sleep(wait.next())
                continue
            self._health.report("relay", None)
            begun = self._clock.monotonic()
            try:
                await self._relay(connection)
            except OperationalError as error:
                _log.warning("relay_interrupted", detail=error.message)
                if self._clock.monotonic() - begun > _STEADY_S:
                    wait.reset()
                await asyncio.sleep(wait.next())
            finally:
                connection.terminate()

    async def _relay(self, connection: Connection) -> None:
        lease = SliceLease(connection)
        refresh_at = self._clock.monotonic()
        while True:
            self._woken.clear()
            if self._clock.monotonic() >= refresh_at:
                await lease.refresh()
                await prune_published(connection, self._clock.now_us() - _RETENTION_US, _PRUNE_BATCH)
                refresh_at = self._clock.monotonic() + _REFRESH_S
            begun = self._clock.monotonic()
            told = await self.relay_once(connection, lease.held)
            if not told:
                await self._wait()
            elif told < self._policy.batch_max:
                await PACE.rest(told, begun, self._clock)

    async def relay_once(self, connection: Connection, slices: Sequence[int]) -> int:
        """One pass; how much there was to do. Raises OperationalError when a dependency fails."""
        held_since_us = self._clock.now_us() - _HELD_US
        entries = await unpublished(connection, slices, self._policy.batch_max, held_since_us)
        resends = await owed_resends(connection, slices, self._policy.batch_max)
        if not entries and not resends:
            return 0
        now_us = self._clock.now_us()
        plan = plan_deliveries(entries, resends, self._owner_of, now_us)
        delivered = await self._publish(connection, plan.records)
        await self._mark(connection, plan, delivered)
        if not all(delivered):
            raise OperationalError(
                f"{delivered.count(False)} records were not delivered; they are sent again."
            )
        return len(entries) + len(resends)

    async def _publish(self, connection: Connection, records: Sequence[Outgoing]) -> list[bool]:
        """Waits for Kafka as long as it takes; the session is kept alive meanwhile."""
        publishing = asyncio.create_task(self._publisher.publish(records))
        try:
            while not (await asyncio.wait({publishing}, timeout=_REFRESH_S))[0]:
                await keep_alive(connection)
        finally:
            publishing.cancel()
        return publishing.result()

    async def _mark(self, connection: Connection, plan: Deliveries, delivered: Sequence[bool]) -> None:
        now_us = self._clock.now_us()
        if entries := delivered_entries(plan, delivered):
            await mark_published(connection, [entry.id for entry in entries], now_us)
            metrics.PUBLISHED.labels(topics.EVENTS).inc(len(entries))
        resent = [resend for resend, indexes in plan.of_resend if all(delivered[index] for index in indexes)]
        if resent:
            await mark_resent(connection, resent)
        for entry in entries:
            metrics.RELAY_DELAY.observe(max(0.0, (now_us - entry.created_at_us) / 1e6))

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._policy.poll_interval_s):
                await self._woken.wait()
        except TimeoutError:
            return


def _acceptance_of(begun: Payment) -> Outgoing:
    """The event of its version 1: the same payment, pending. What is handed in is spent."""
    begun.status, begun.version = PENDING, 1
    return event_record(begun, f"tollgate.payment.{NAME[PENDING]}")


def _append(records: list[Outgoing], outgoing: Sequence[Outgoing]) -> list[int]:
    """The indexes that `outgoing` gets in `records`."""
    first = len(records)
    records.extend(outgoing)
    return list(range(first, len(records)))
