"""Statuses on their way back: snapshots from payments.status into the shard, in order, at least once.

The order, which a crash may cut anywhere; the shard ignores what it already has, so every repeat is harmless:

1. records are read from where the group's offset stands; if that place is gone, what was missed is first
   asked of the Ledger, and reading goes on at the earliest there is,
2. those that can't be a snapshot are delivered to payments.dlq,
3. the shard has applied the rest, durably (ApplyStatus has answered),
4. the offset is committed.

While the shard or Kafka is down, it waits; nothing is skipped. A replaced store (another incarnation) is fed
from the earliest snapshot there is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import structlog
from google.protobuf.message import DecodeError

from cdc import metrics
from cdc.dead_letters import DeadLetter, DeadLetters
from cdc.patient_shard import PatientShard
from cdc.status_refresh import Refresh
from cdc.status_topic import Beginning, StatusRecord, StatusSource
from tollgate.errors import OperationalError, RejectedInput
from tollgate.growing_wait import GrowingWait
from tollgate.topics import STATUS
from tollgate.v1.shard_pb2 import StatusUpdate

CALL_BYTES_MAX: Final = 2 * 1024 * 1024
_READ_AGAIN_S: Final = 1.0
_NO_STORE_YET_S: Final = 0.1

log = structlog.get_logger()


class Item(NamedTuple):
    record: StatusRecord
    update: StatusUpdate


class Judged(NamedTuple):
    good: list[Item]
    poison: list[tuple[StatusRecord, str]]


def judge(records: Sequence[StatusRecord]) -> Judged:
    """Which records are snapshots of a payment, and why the others are not. Pure; keeps the order."""
    judged = Judged([], [])
    for record in records:
        try:
            update = StatusUpdate.FromString(record.value or b"")
        except DecodeError:
            judged.poison.append((record, "not a StatusUpdate"))
            continue
        payment = update.payment
        if not payment.merchant or not payment.checkout_id or payment.version < 1:
            judged.poison.append((record, "a StatusUpdate without payment, merchant, checkout id or version"))
        else:
            judged.good.append(Item(record, update))
    return judged


def calls(items: Sequence[Item]) -> Iterator[list[Item]]:
    """Calls that the shard takes: gRPC refuses a message above 4 MiB. Pure; keeps the order."""
    call: list[Item] = []
    size = 0
    for item in items:
        bytes_of_item = len(item.record.value or b"")
        if call and size + bytes_of_item > CALL_BYTES_MAX:
            yield call
            call, size = [], 0
        call.append(item)
        size += bytes_of_item
    if call:
        yield call


class StatusFeed:
    """One per process. `run` until cancelled."""

    def __init__(
        self,
        *,
        incarnation: Callable[[], bytes | None],
        open_source: Callable[[bytes], StatusSource],
        shard: PatientShard,
        refresh: Refresh,
        dead_letters: DeadLetters,
    ) -> None:
        self._incarnation = incarnation
        self._open_source = open_source
        self._shard = shard
        self._refresh = refresh
        self._dead_letters = dead_letters

    async def run(self) -> None:
        while True:
            incarnation = self._incarnation()
            if incarnation is None:
                await asyncio.sleep(_NO_STORE_YET_S)
                continue
            source = self._open_source(incarnation)
            try:
                await self._feed(source, incarnation)
            finally:
                await source.close()

    async def _feed(self, source: StatusSource, incarnation: bytes) -> None:
        """Until the store is another, or reading has failed: then it starts again at what is committed."""
        offset, published_at_us, is_lost = await self._begin(source)
        if is_lost:
            await self._refresh.run(published_at_us)
            await source.done(offset, published_at_us)
        try:
            while self._incarnation() in (incarnation, None):
                if records := await source.next_batch():
                    published_at_us = max(published_at_us, await self._take(records))
                    await source.done(records[-1].offset + 1, published_at_us)
        except OperationalError as error:
            log.warning("status_not_read", error=error.message)
            await asyncio.sleep(_READ_AGAIN_S)

    async def _begin(self, source: StatusSource) -> Beginning:
        wait = GrowingWait(_READ_AGAIN_S, _READ_AGAIN_S)
        while True:
            try:
                return await source.begin()
            except OperationalError as error:
                if wait.fresh:  # said once an outage
                    log.warning("status_not_begun", error=error.message)
                await asyncio.sleep(wait.next())

    async def _take(self, records: Sequence[StatusRecord]) -> int:
        """When the last of them was published; 0 when none says so."""
        judged = judge(records)
        for record, reason in judged.poison:
            await self._bury(record, reason)
        for call in calls(judged.good):
            await self._apply(call)
        return max((item.update.published_at_us for item in judged.good), default=0)

    async def _apply(self, items: Sequence[Item]) -> None:
        """Returns when the shard has them all, however long that takes."""
        try:
            await self._shard.apply([item.update for item in items])
        except RejectedInput as error:
            await self._apply_singly(items, error)

    async def _apply_singly(self, items: Sequence[Item], error: RejectedInput) -> None:
        """The shard refuses the content of the batch: the one that it refuses alone is the one to bury."""
        if len(items) == 1:
            return await self._bury(items[0].record, error.message)
        for item in items:
            await self._apply([item])
        return None

    async def _bury(self, record: StatusRecord, reason: str) -> None:
        log.error(
            "status_record_buried",
            reason=reason,
            origin=f"{STATUS}/{record.partition}/{record.offset}",
            action="Operator action: look at it with `tollgate dlq show`; the shard goes on without it.",
        )
        await self._dead_letters.send(
            DeadLetter(record.key, record.value, reason, STATUS, record.partition, record.offset)
        )
        metrics.DEAD_LETTERS.inc()
