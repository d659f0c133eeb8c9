"""Intake: batches of changes from Kafka into Postgres.

1. The batch is parsed; what can't be read is set aside.
2. The rest is stored in one transaction. When Postgres refuses a content, the batch is stored one by one and
   only what is refused is set aside.
3. What was set aside is delivered to payments.dlq, with its bytes and where it came from.
4. Only then does `handle` return, and only then may the offsets be committed.

A crash anywhere repeats the batch, and every step may meet its own traces. A dependency that is down raises
OperationalError: nothing is committed, nothing is dead-lettered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from processor import metrics
from processor.changes import ChangeRecord, Refused, parse
from processor.kafka.producer import Outgoing, Publishing
from processor.storage.database import Pool
from processor.storage.intake import Acceptance, Ingested, ReceivedWebhook, ingest
from tollgate import topics
from tollgate.clock import Clock
from tollgate.errors import OperationalError, RejectedInput

_log = structlog.get_logger()

Parsed = tuple[ChangeRecord, Acceptance | ReceivedWebhook]


class Intake:
    """`on_stored` is called after each commit that brought something new."""

    def __init__(
        self, pool: Pool, publisher: Publishing, clock: Clock, on_stored: Callable[[], None]
    ) -> None:
        self._pool = pool
        self._publisher = publisher
        self._clock = clock
        self._on_stored = on_stored

    async def handle(self, records: Sequence[ChangeRecord]) -> None:
        """Everything in `records` is durable when it returns. Raises OperationalError to be called again."""
        now_us = self._clock.now_us()
        good: list[Parsed] = []
        refused: list[tuple[ChangeRecord, str]] = []
        for record in records:
            match parse(record, now_us):
                case Refused(reason):
                    refused.append((record, reason))
                case change:
                    good.append((record, change))
        refused += await self._store(good, now_us)
        if refused:
            await self._dead_letter(refused)
        self._on_stored()

    async def _store(self, good: Sequence[Parsed], now_us: int) -> list[tuple[ChangeRecord, str]]:
        if not good:
            return []
        try:
            acceptances = [change for _record, change in good if isinstance(change, Acceptance)]
            webhooks = [change for _record, change in good if isinstance(change, ReceivedWebhook)]
            ingested = await ingest(self._pool, acceptances, webhooks, now_us)
        except RejectedInput as error:
            if len(good) == 1:
                return [(good[0][0], error.message)]
            return [refused for one in good for refused in await self._store([one], now_us)]
        _count(ingested, acceptances, len(webhooks), now_us)
        return []

    async def _dead_letter(self, refused: Sequence[tuple[ChangeRecord, str]]) -> None:
        outgoing = [_dlq_record(record, reason) for record, reason in refused]
        for record, reason in refused:
            _log.error(
                "change_refused",
                detail=f"{reason} It goes to {topics.DLQ}; look at it there.",
                origin=f"{record.topic}/{record.partition}/{record.offset}",
            )
        if not all(await self._publisher.publish(outgoing)):
            raise OperationalError(f"{topics.DLQ} could not be written; the changes are taken in again.")
        metrics.CHANGES.labels("refused").inc(len(refused))


def _dlq_record(record: ChangeRecord, reason: str) -> Outgoing:
    origin = {
        "error": reason,
        "attempts": "1",
        "origin_topic": record.topic,
        "origin_partition": str(record.partition),
        "origin_offset": str(record.offset),
    }
    headers = [*record.headers, *((name, value.encode()) for name, value in origin.items())]
    return Outgoing(topics.DLQ, record.key, record.value, headers)


def _count(ingested: Ingested, acceptances: Sequence[Acceptance], webhooks: int, now_us: int) -> None:
    metrics.CHANGES.labels("fresh").inc(ingested.fresh)
    metrics.CHANGES.labels("repeated").inc(ingested.repeated)
    metrics.CHANGES.labels("webhook").inc(webhooks)
    for item in acceptances:
        metrics.INTAKE_DELAY.observe(max(0.0, (now_us - item.origin.committed_at_us) / 1e6))
    for merchant, checkout_id, shard in ingested.conflicts:
        metrics.CHANGES.labels("conflict").inc()
        metrics.CONFLICTS.inc()
        _log.error(
            "payment_conflict",
            detail="A shard accepted another content under a checkout id that was taken. The first stands; "
            "compare the two in payment_conflicts and tell the merchant.",
            merchant=merchant,
            checkout_id=checkout_id,
            shard=shard,
        )
