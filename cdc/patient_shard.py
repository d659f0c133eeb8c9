"""Snapshots into the shard, however long the shard is down: what the feed and the refresh both do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from cdc import metrics
from cdc.shard_client import ShardApi
from tollgate.errors import OperationalError
from tollgate.growing_wait import GrowingWait
from tollgate.v1.shard_pb2 import StatusUpdate

_RETRY_S_MIN: Final = 0.05
_RETRY_S_MAX: Final = 1.0

log = structlog.get_logger()


class PatientShard:
    """One call at a time."""

    def __init__(self, shard: ShardApi) -> None:
        self._shard = shard

    async def apply(self, updates: Sequence[StatusUpdate]) -> None:
        """Returns when the shard has them all, durably. Raises RejectedInput when it will not have one."""
        wait = GrowingWait(_RETRY_S_MIN, _RETRY_S_MAX)
        while True:
            try:
                answer = await self._shard.apply_status(updates)
            except OperationalError as error:
                if wait.fresh:  # said once an outage
                    log.warning("status_not_applied", error=error.message, waiting=len(updates))
                metrics.STATUS_RETRIES.inc()
                metrics.STATUS_WAITING.set(len(updates))
                await asyncio.sleep(wait.next())
            else:
                metrics.STATUS_WAITING.set(0)
                metrics.STATUS_APPLIED.inc(answer.applied)
                metrics.STATUS_IGNORED.inc(answer.ignored)
                return
