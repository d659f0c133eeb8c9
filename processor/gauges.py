"""What waits for somebody, as gauges: counted by one processor every few seconds, NaN at all the others, and
everywhere while Postgres can't be asked. `max` over the processors is the figure.

What stays in doubt is an alarm: a PSP that answers 500 to a setting of ours would otherwise be asked again in
silence, until the operation is parked.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from processor import metrics
from processor.storage.database import Connection, connect
from processor.storage.waiting import Waiting, is_the_one, what_waits
from tollgate.clock import Clock
from tollgate.errors import OperationalError

_EVERY_S: Final = 5.0  # less than the 10 s after which Postgres ends an unused session
_ALARM_S: Final = 900.0  # in doubt for so long; said again as often
_NAN: Final = float("nan")

_log = structlog.get_logger()


class WaitingGauges:
    """`under_way_s`: for so long a call may be under way before its silence is doubt."""

    def __init__(self, dsn: str, clock: Clock, under_way_s: float) -> None:
        self._dsn = dsn
        self._clock = clock
        self._under_way_us = round(under_way_s * 1e6)
        self._alarm_at = clock.monotonic()

    async def run(self) -> None:
        """Until cancelled. A lost session is opened anew; it is nobody's readiness."""
        while True:
            self._show(None)
            try:
                connection = await connect(self._dsn)
                try:
                    while True:
                        await self.look(connection)
                        await asyncio.sleep(_EVERY_S)
                finally:
                    connection.terminate()
            except OperationalError:
                self._show(None)
                await asyncio.sleep(_EVERY_S)

    async def look(self, connection: Connection) -> None:
        """Raises OperationalError."""
        if await is_the_one(connection):
            waiting = await what_waits(connection, self._clock.now_us() - self._under_way_us)
            self._show(waiting)
            self._alarm(waiting)

    def _alarm(self, waiting: Waiting) -> None:
        age_s, now = self._age_s(waiting), self._clock.monotonic()
        if waiting.oldest is None or age_s < _ALARM_S or now < self._alarm_at:
            return
        self._alarm_at = now + _ALARM_S
        merchant, checkout_id, operation_id = waiting.oldest
        metrics.IN_DOUBT_ALARMS.inc()
        _log.error(
            "in_doubt_for_long",
            detail=f"{waiting.in_doubt} operations are in doubt, this one for {age_s:.0f} s. Look at the PSP "
            "and at the evidence in attempts: an answer that comes again and again may be about settings of "
            "ours there. What stays in doubt is parked for a person.",
            merchant=merchant,
            checkout_id=checkout_id,
            operation_id=operation_id,
        )

    def _show(self, waiting: Waiting | None) -> None:
        metrics.WEBHOOKS_WAITING.set(waiting.webhooks if waiting else _NAN)
        metrics.PARKED_NOW.set(waiting.parked if waiting else _NAN)
        metrics.IN_DOUBT.set(waiting.in_doubt if waiting else _NAN)
        metrics.IN_DOUBT_OLDEST.set(self._age_s(waiting) if waiting else _NAN)

    def _age_s(self, waiting: Waiting) -> float:
        since_us = waiting.since_us
        return 0.0 if since_us is None else max(0.0, (self._clock.now_us() - since_us) / 1e6)
