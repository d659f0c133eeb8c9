"""What the feed has missed, from the Ledger: how each payment of this shard stands now.

Needed when the place in payments.status is gone: retention took it (the cdc process or its shard was away
for a week), records were deleted, or the topic is another. Nothing is told as done before the last page is
applied, so a crash on the way begins anew; the shard ignores what it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

import structlog

from cdc import metrics
from cdc.ledger_client import LedgerApi
from cdc.patient_shard import PatientShard
from tollgate.errors import OperationalError, RejectedInput
from tollgate.growing_wait import GrowingWait
from tollgate.v1.ledger_pb2 import ListShardPaymentsResponse
from tollgate.v1.payment_pb2 import Payment
from tollgate.v1.shard_pb2 import StatusUpdate

# A snapshot is published after it was written, and by whoever comes to it: up to so much later.
PUBLISHED_LATE_US: Final = 24 * 60 * 60 * 1_000_000
_CALL_PAYMENTS_MAX: Final = 100  # at most 20 KB each
_RETRY_S_MIN: Final = 0.25
_RETRY_S_MAX: Final = 5.0
_TOLD_EVERY_PAGES: Final = 100

log = structlog.get_logger()


class Refresh(Protocol):
    async def run(self, missed_since_us: int) -> None:
        """Returns when the shard has everything that was published since then, however long that takes."""
        ...


class LedgerRefresh:
    def __init__(self, shard: int, ledger: LedgerApi, applying: PatientShard) -> None:
        self._shard = shard
        self._ledger = ledger
        self._applying = applying

    async def run(self, missed_since_us: int) -> None:
        since_us = max(0, missed_since_us - PUBLISHED_LATE_US)
        log.error(
            "status_position_lost",
            shard=self._shard,
            since_us=since_us,
            action="Statuses were deleted from payments.status before this shard had them; they are asked of "
            "the Ledger. Operator action: none, unless this goes on; then look at the processors.",
        )
        metrics.STATUS_POSITION_LOST.inc()
        cursor, pages, payments = "", 0, 0
        while True:
            page = await self._page(since_us, cursor)
            for call in _calls(page.payments):
                await self._apply(call)
            pages, payments = pages + 1, payments + len(page.payments)
            if not page.next_cursor or pages % _TOLD_EVERY_PAGES == 0:
                log.info("status_refreshed", payments=payments, pages=pages, done=not page.next_cursor)
            if not page.next_cursor:
                return
            cursor = page.next_cursor

    async def _page(self, since_us: int, cursor: str) -> ListShardPaymentsResponse:
        """Waited for: while no processor runs, nothing newer comes over the topic either."""
        wait = GrowingWait(_RETRY_S_MIN, _RETRY_S_MAX)
        while True:
            try:
                return await self._ledger.shard_payments(self._shard, since_us, cursor)
            except OperationalError as error:
                if wait.fresh:
                    log.warning("status_refresh_waits", error=error.message)
                await asyncio.sleep(wait.next())

    async def _apply(self, payments: Sequence[Payment]) -> None:
        try:
            await self._applying.apply([StatusUpdate(payment=payment) for payment in payments])
            metrics.STATUS_REFRESHED.inc(len(payments))
        except RejectedInput as error:
            if len(payments) > 1:
                for payment in payments:
                    await self._apply([payment])
                return
            refused = payments[0]
            log.error(
                "status_refresh_refused",
                payment=f"{refused.merchant}/{refused.checkout_id}",
                reason=error.message,
                action="Operator action: compare the payment in Postgres with what the shard says of it.",
            )


class NoRefresh:
    """Without a Ledger the earliest snapshot has to do; open payments are asked for as they are read."""

    async def run(self, missed_since_us: int) -> None:
        metrics.STATUS_POSITION_LOST.inc()
        log.error(
            "status_position_lost",
            since_us=missed_since_us,
            action="Statuses were deleted from payments.status before this shard had them, and no Ledger is "
            "configured. Operator action: set TOLLGATE_LEDGER__TARGETS, delete the group's offsets, restart.",
        )


def _calls(payments: Sequence[Payment]) -> Iterator[Sequence[Payment]]:
    for start in range(0, len(payments), _CALL_PAYMENTS_MAX):
        yield payments[start : start + _CALL_PAYMENTS_MAX]
