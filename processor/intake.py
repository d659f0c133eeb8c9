"""Intake: batches of changes from Kafka into Postgres.

1. The batch is parsed. What can't be read is set aside, and so is what comes after a change of its key that
   is: it would overtake it.
2. The rest is stored in one transaction. When Postgres refuses a content, the batch is stored one by one and
   only what is refused, and what is behind it, is set aside.
3. What was set aside is noted in Postgres, so that what follows knows, then delivered to payments.dlq, with
   its bytes and where it came from. What a redrive brought and was stored is noted as taken in.
4. Only then does `handle` return, and only then may the offsets be committed.

Where there is room, payments are begun in the transaction that stores them (`processor/first_calls`), as much
of the batch at a time as can be.

A crash anywhere repeats the batch, and every step may meet its own traces. A dependency that is down raises
OperationalError: nothing is committed, nothing is dead-lettered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from processor import metrics
from processor.changes import ChangeRecord, Refused, parse
from processor.dead_letters import BEHIND, OpenLetters, dlq_record, is_redriven, key_hash, origin_of
from processor.first_calls import Beginnings, Room
from processor.kafka.producer import Publishing
from processor.storage.database import Pool
from processor.storage.dead_letters import SetAside, any_open, mark_taken_in, open_letters, set_aside
from processor.storage.intake import NONE, Acceptance, Ingested, ReceivedWebhook, ingest
from tollgate import topics
from tollgate.clock import Clock
from tollgate.errors import OperationalError, RejectedInput

_log = structlog.get_logger()

Parsed = tuple[ChangeRecord, Acceptance | ReceivedWebhook]


class Intake:
    """`on_stored` is called after each commit that left something to be claimed, `on_begun` after every
    other, which has something to be told at most; `on_webhooks` after those that brought a webhook.
    """

    def __init__(
        self,
        pool: Pool,
        publisher: Publishing,
        clock: Clock,
        on_stored: Callable[[], None],
        on_webhooks: Callable[[], None] = lambda: None,
        beginnings: Beginnings | None = None,
        on_begun: Callable[[], None] = lambda: None,
    ) -> None:
        self._pool = pool
        self._publisher = publisher
        self._clock = clock
        self._on_stored = on_stored
        self._on_webhooks = on_webhooks
        self._beginnings = beginnings
        self._on_begun = on_begun

    async def handle(self, records: Sequence[ChangeRecord]) -> None:
        """Everything in `records` is durable when it returns. Raises OperationalError to be called again."""
        if self._beginnings is None:
            await self._handle(records)
            return
        while records:
            room = await self._beginnings.reserve(len(records))
            size = room.left or len(records)
            try:
                await self._handle(records[:size], room)
            finally:
                room.close()
            records = records[size:]

    async def _handle(self, records: Sequence[ChangeRecord], room: Room | None = None) -> None:
        now_us = self._clock.now_us()
        letters = await self._open_letters(records)
        good: list[Parsed] = []
        refused: list[tuple[ChangeRecord, str]] = []
        for record in records:
            change = parse(record, now_us)
            if isinstance(change, Refused):
                letters.add(record)
                refused.append((record, change.reason))
            elif letters.blocks(record):
                refused.append((record, BEHIND))
            else:
                letters.discard(record)
                good.append((record, change))
        refused += await self._store(good, letters, now_us, room)
        if refused:
            await self._dead_letter(refused, now_us)
        aside = {origin_of(record) for record, _reason in refused}
        returned = {origin_of(record) for record in records if is_redriven(record)} - aside
        if returned:
            await mark_taken_in(self._pool, list(returned), now_us)
        if any(isinstance(change, ReceivedWebhook) for _record, change in good):
            self._on_webhooks()

    async def _open_letters(self, records: Sequence[ChangeRecord]) -> OpenLetters:
        if not await any_open(self._pool):
            return OpenLetters()
        return OpenLetters(await open_letters(self._pool, list({key_hash(one.key) for one in records})))

    async def _store(
        self, good: Sequence[Parsed], letters: OpenLetters, now_us: int, room: Room | None = None
    ) -> list[tuple[ChangeRecord, str]]:
        """What is refused is not begun: then it is refused for the payment's own content."""
        if not good:
            return []
        acceptances = [change for _record, change in good if isinstance(change, Acceptance)]
        webhooks = [change for _record, change in good if isinstance(change, ReceivedWebhook)]
        first_calls = room.first_calls(acceptances) if room else NONE
        try:
            ingested = await ingest(self._pool, acceptances, webhooks, now_us, first_calls)
        except RejectedInput as error:
            if len(good) > 1 or first_calls.attempts:
                return [refused for one in good for refused in await self._store_alone(one, letters, now_us)]
            letters.add(good[0][0])
            return [(good[0][0], error.message)]
        if room:
            room.go(ingested.begun)
        _count(ingested, acceptances, len(webhooks), now_us)
        if ingested.fresh > len(ingested.begun):
            self._on_stored()
        else:
            self._on_begun()
        return []

    async def _store_alone(
        self, one: Parsed, letters: OpenLetters, now_us: int
    ) -> list[tuple[ChangeRecord, str]]:
        return [(one[0], BEHIND)] if letters.blocks(one[0]) else await self._store([one], letters, now_us)

    async def _dead_letter(self, refused: Sequence[tuple[ChangeRecord, str]], now_us: int) -> None:
        for record, reason in refused:
            _log.error(
                "change_refused",
                detail=f"{reason} It goes to {topics.DLQ}; look at it with `tollgate dlq list`.",
                origin=str(origin_of(record)),
            )
        letters = {
            origin_of(record): SetAside(origin_of(record), key_hash(record.key), reason)
            for record, reason in refused
        }
        await set_aside(self._pool, list(letters.values()), now_us)
        outgoing = [dlq_record(record, reason) for record, reason in refused]
        if not all(await self._publisher.publish(outgoing)):
            raise OperationalError(f"{topics.DLQ} could not be written; the changes are taken in again.")
        metrics.CHANGES.labels("refused").inc(len(refused))


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
