"""Dispatch: claims what is due, as much as there is room for, and hands it to the pipeline.

Woken as soon as intake or an outcome commits; polls otherwise, for what became due by itself or was left by a
worker that died. At most `concurrency` operations are in flight here, those included for which intake has
reserved room: they come claimed and stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from processor import metrics
from processor.operation import Claim
from processor.patience import Health, persist
from processor.pipeline import Pipeline
from processor.storage.attempts import NewAttempt
from processor.storage.database import Pool
from processor.storage.operations import claim
from tollgate.clock import Clock

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class DispatchPolicy:
    concurrency: int
    batch_max: int
    poll_interval_s: float
    lease_s: float
    except_psps: tuple[str, ...] = ()  # have a budget, and a dispatcher of their own


class Dispatcher:
    def __init__(
        self, pool: Pool, pipeline: Pipeline, policy: DispatchPolicy, clock: Clock, health: Health
    ) -> None:
        self._pool = pool
        self._pipeline = pipeline
        self._policy = policy
        self._clock = clock
        self._health = health
        self._in_flight = 0
        self._stopping = False
        self._more = False  # the last claim was cut off by its limit
        self._woken = asyncio.Event()
        self._eased = asyncio.Event()  # there may be room for what comes claimed
        self._batches: set[asyncio.Task[None]] = set()

    def wake(self) -> None:
        """Something may be due now."""
        self._woken.set()

    def wake_in(self, delay_s: float) -> None:
        """Something will be due then; long delays are left to polling."""
        if delay_s < self._policy.poll_interval_s:
            asyncio.get_running_loop().call_later(delay_s, self.wake)

    async def run(self) -> None:
        """Until `stop`; what is in flight goes on, see `drain`."""
        while not self._stopping:
            self._woken.clear()
            limit = min(self._policy.concurrency - self._in_flight, self._policy.batch_max)
            self._in_flight += limit  # theirs, while intake begins payments beside the claim
            claims = await self._claim(limit) if limit else []
            self._more = len(claims) == limit
            self.give_back(limit - len(claims))
            if claims:
                self._start(len(claims), partial(self._pipeline.run, claims))
            if not self._more or not self._has_room():
                await self._wait()

    async def reserve(self, wanted: int, patience_s: float) -> int:
        """Room for at most `wanted` operations that come claimed. Waits while there is none, or while what is
        due has not all been claimed; 0 when that lasts too long, or at the stop.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                while not (self._stopping or (self._has_room() and not self._more)):
                    self._eased.clear()
                    await self._eased.wait()
        if self._stopping or self._more or not self._has_room():
            return 0
        room = min(wanted, self._policy.concurrency - self._in_flight)
        self._in_flight += room
        return room

    def give_back(self, room: int) -> None:
        """What was reserved and is not, or no longer, needed."""
        self._in_flight -= room
        self._eased.set()
        if self._more and self._has_room():
            self.wake()

    def carry_out(self, attempts: Sequence[NewAttempt]) -> None:
        """Operations that are claimed and stored, in room that was reserved and is theirs from now."""
        if attempts:
            self._start(len(attempts), partial(self._pipeline.run_stored, attempts))

    def stop(self) -> None:
        """No claim begins after this; one under way is still carried out, not left to its lease."""
        self._stopping = True
        self._eased.set()
        self.wake()

    async def drain(self, timeout_s: float) -> None:
        """Waits for what is in flight, at most that long; the rest is left to its leases."""
        if self._batches:
            _done, late = await asyncio.wait(self._batches, timeout=timeout_s)
            for task in late:
                task.cancel()

    async def _claim(self, limit: int) -> list[Claim]:
        async def act() -> list[Claim]:
            return await claim(
                self._pool,
                limit,
                self._policy.lease_s,
                self._clock.now_us(),
                self._clock.monotonic(),
                self._policy.except_psps,
            )

        return await persist(self._health, "postgres", act)

    def _start(self, left: int, run: Callable[[Callable[[], None]], Coroutine[Any, Any, None]]) -> None:
        """`run` calls what it is given once for each of the `left` operations."""
        metrics.CLAIMED.inc(left)
        metrics.IN_FLIGHT.inc(left)

        def finished() -> None:
            nonlocal left
            left -= 1
            self._finished(1)

        def ended(task: asyncio.Task[None]) -> None:
            self._ended(task, left)

        task = asyncio.create_task(run(finished))
        self._batches.add(task)
        task.add_done_callback(ended)

    def _finished(self, count: int) -> None:
        metrics.IN_FLIGHT.dec(count)
        self.give_back(count)

    def _has_room(self) -> bool:
        """Enough to be worth a transaction, which has its price whatever it holds."""
        return self._policy.concurrency - self._in_flight >= max(1, self._policy.concurrency // 3)

    def _ended(self, task: asyncio.Task[None], left: int) -> None:
        """What a batch that broke off leaves is taken up again when its leases end; its room is free now."""
        self._batches.discard(task)
        if left:
            self._finished(left)
        if not task.cancelled() and (error := task.exception()):
            _log.error("batch_broke_off", exc_info=error, left=left)

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._policy.poll_interval_s):
                await self._woken.wait()
        except TimeoutError:
            return
