"""Webhooks that were received are applied as answers are, by the same rules, in one transaction with the
event itself.

Woken by intake when it brought webhooks; polls for what became due by itself, or because its payment came.
What Postgres refuses is found by applying one by one, and set aside with an alarm. A crash leaves the event
due; what is applied twice changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from processor import metrics
from processor.commit import Committed, count_committed
from processor.patience import Health, persist
from processor.psp.interface import PspPlan
from processor.psp.webhook import Reading, Report
from processor.storage.database import Pool
from processor.storage.inbox import Applied, Event, EventKey, Settled, apply_events, due_events, refuse_event
from processor.webhook_outcome import Standing, Verdict, decide_report
from tollgate.clock import Clock
from tollgate.errors import RejectedInput
from tollgate.v1.payment_pb2 import Payment

BATCH_MAX: Final = 200
_POLL_S: Final = 0.5

_NEXT: Final = {
    "unreadable": "It is kept in webhook_inbox; compare it with what the PSP documents.",
    "refused": "It is kept in webhook_inbox; look at what it says and at the payment.",
    "unmatched": "No payment came for it in 7 days. It is kept in webhook_inbox; ask the PSP whose it is.",
    "anomaly": "The PSP's word contradicts the payment. It is kept in anomalies; compare the two.",
}

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class PspWebhooks:
    """How a PSP's webhooks are read, and what its adapter declares."""

    read: Callable[[bytes], Reading]
    plan: PspPlan


class Inbox:
    """`on_committed` learns of what was decided, as from the committer."""

    def __init__(
        self,
        pool: Pool,
        psps: Mapping[str, PspWebhooks],
        clock: Clock,
        health: Health,
        on_committed: Callable[[Committed], None],
    ) -> None:
        self._pool = pool
        self._psps = psps
        self._clock = clock
        self._health = health
        self._on_committed = on_committed
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Something may be due now."""
        self._woken.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._woken.clear()
            if not await self.apply_due():
                await self._wait()

    async def apply_due(self) -> int:
        """One pass over what is due; how many events something became of."""
        keys = await persist(self._health, "postgres", lambda: due_events(self._pool, BATCH_MAX))
        return await self._apply(keys) if keys else 0

    async def _apply(self, keys: Sequence[EventKey]) -> int:
        async def act() -> Applied:
            now_us = self._clock.now_us()
            return await apply_events(self._pool, keys, self._read, self._decide, now_us)

        try:
            applied = await persist(self._health, "postgres", act)
        except RejectedInput as error:
            if len(keys) > 1:
                return sum([await self._apply([key]) for key in keys])
            await self._refuse(keys[0], error)
            return 1
        _count(applied)
        count_committed(applied.decided, self._clock.now_us())
        if applied.decided:
            self._on_committed(applied.decided)
        return len(applied.settled)

    async def _refuse(self, key: EventKey, error: RejectedInput) -> None:
        await persist(self._health, "postgres", lambda: refuse_event(self._pool, key, self._clock.now_us()))
        _alarm(Settled(key, "refused", error.message))

    def _read(self, event: Event) -> Reading | None:
        psp = self._psps.get(event.key.psp)
        return None if psp is None else psp.read(event.body)

    def _decide(self, payment: Payment, operations: Sequence[Standing], report: Report) -> Verdict:
        return decide_report(payment, operations, report, self._psps[payment.psp].plan, self._clock.now_us())

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(_POLL_S):
                await self._woken.wait()
        except TimeoutError:
            return


def _count(applied: Applied) -> None:
    for settled in applied.settled:
        if settled.result is None:
            _log.info(
                "webhook_waits", psp=settled.key.psp, event_id=settled.key.event_id, detail=settled.detail
            )
        elif settled.result in _NEXT:
            _alarm(settled)
        else:
            metrics.WEBHOOKS.labels(settled.key.psp, settled.result).inc()
    for _merchant, _checkout_id, _operation_id, kind, _evidence in applied.anomalies:
        metrics.ANOMALIES.labels(kind).inc()


def _alarm(settled: Settled) -> None:
    result = settled.result or ""
    metrics.WEBHOOKS.labels(settled.key.psp, result).inc()
    _log.error(
        f"webhook_{result}",
        detail=f"{settled.detail}. {_NEXT[result]}",
        psp=settled.key.psp,
        event_id=settled.key.event_id,
        merchant=settled.merchant,
        checkout_id=settled.checkout_id,
        operation_id=settled.operation_id,
    )
