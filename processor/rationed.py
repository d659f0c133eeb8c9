"""Dispatch to a PSP that may be called only so often: what is claimed is what will be sent, one turn each.

1. Claim in turn over the merchants, a reservation's worth and no more: a claim is held for its slot, not for
   a queue.
2. Plan: what needs no call (expired, declined by risk, parked) is concluded and takes no slot.
3. Reserve a slot for each call. When Postgres can't: nothing is sent. When all is reserved up to the horizon:
   the claims are given back, and the loop sleeps until there is room again.
4. Wait for the first slot, then store the attempts, which renews their leases, then send each in its slot.
5. A slot that was missed is forfeited: the attempt is withdrawn, as if it had never been stored.

While one reservation is being sent the next is claimed, so that no slot passes unused. A crash leaves leases
that run out; only one between the storing and the slot (a quarter of a second) leaves a doubt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final

import structlog

from processor import metrics
from processor.budget import Budget, Exhausted, Slot
from processor.dispatch import DispatchPolicy
from processor.operation import Claim
from processor.patience import Health, persist
from processor.pipeline import Pipeline, finishing
from processor.storage.attempts import NewAttempt
from processor.storage.budgets import give_back, withdraw
from processor.storage.database import Pool
from processor.storage.turns import claim_in_turn
from tollgate.clock import Clock
from tollgate.errors import OperationalError

# Storing takes a few milliseconds, and a slot is open for a hundred.
_STORE_AHEAD_S: Final = 0.03

_log = structlog.get_logger()


class RationedDispatcher:
    """One for each PSP with a budget, in every processor."""

    def __init__(
        self,
        pool: Pool,
        pipeline: Pipeline,
        budget: Budget,
        policy: DispatchPolicy,
        clock: Clock,
        health: Health,
    ) -> None:
        self._pool = pool
        self._pipeline = pipeline
        self._budget = budget
        self._policy = policy
        self._clock = clock
        self._health = health
        self._turn = ""  # the merchant that was served last
        self._stopping = asyncio.Event()
        self._woken = asyncio.Event()
        self._ways: set[asyncio.Task[None]] = set()

    def wake(self) -> None:
        """Something may be due now."""
        self._woken.set()

    def stop(self) -> None:
        """Nothing is claimed or stored after this; what waits for its slot is given back."""
        self._stopping.set()
        self.wake()

    async def drain(self, timeout_s: float) -> None:
        """Waits for what is in flight, at most that long; the rest is left to its leases."""
        if self._ways:
            _done, late = await asyncio.wait(self._ways, timeout=timeout_s)
            for task in late:
                task.cancel()

    async def run(self) -> None:
        """Until `stop`; what is in flight goes on, see `drain`."""
        while not self._stopping.is_set():
            self._woken.clear()
            room = self._policy.concurrency - len(self._ways)
            claims = await self._claim(min(self._budget.policy.batch_max, room)) if room > 0 else []
            if claims:
                metrics.CLAIMED.inc(len(claims))
                await self._admit(claims)
            else:
                await _within(self._policy.poll_interval_s, self._woken)

    async def _claim(self, limit: int) -> list[Claim]:
        """The turn goes round: after the last merchant comes the first."""
        claims = await self._claim_after(self._turn, limit)
        if not claims and self._turn:
            self._turn = ""
            claims = await self._claim_after(self._turn, limit)
        if claims:
            self._turn = max(claim.payment.merchant for claim in claims)
        return claims

    async def _claim_after(self, merchant: str, limit: int) -> list[Claim]:
        async def act() -> list[Claim]:
            now_us, monotonic = self._clock.now_us(), self._clock.monotonic()
            return await claim_in_turn(
                self._pool, self._budget.psp, merchant, limit, self._policy.lease_s, now_us, monotonic
            )

        return await persist(self._health, "postgres", act)

    async def _admit(self, claims: Sequence[Claim]) -> None:
        attempts, conclusions = await self._pipeline.plan(claims)
        for conclusion in conclusions:
            self._go(self._pipeline.conclude(conclusion))
        if not attempts:
            return
        try:
            slots = await self._budget.reserve(len(attempts))
            if isinstance(slots, Exhausted):
                await give_back(self._pool, [attempt.claim for attempt in attempts])
                await _within(slots.again_in_s, self._stopping)
                return
            await self._send(attempts, slots)
        except OperationalError as error:
            # The claims are left to their leases: without Postgres they can't be given back either.
            _log.warning(
                "budget_unavailable", psp=self._budget.psp, detail=f"{error.message} Nothing is sent."
            )
            await _within(self._policy.poll_interval_s, self._stopping)

    async def _send(self, attempts: Sequence[NewAttempt], slots: Sequence[Slot]) -> None:
        await _within(slots[0].opens - _STORE_AHEAD_S - self._clock.monotonic(), self._stopping)
        if self._stopping.is_set():
            metrics.BUDGET_SLOTS.labels(self._budget.psp, "forfeited").inc(len(slots))
            await give_back(self._pool, [attempt.claim for attempt in attempts])
            return
        expired = [attempt for attempt in attempts if self._expired(attempt)]
        if expired:  # while they waited; whoever claims them next fails them
            await give_back(self._pool, [attempt.claim for attempt in expired])
        allowed = await self._pipeline.store([attempt for attempt in attempts if attempt not in expired])
        metrics.BUDGET_SLOTS.labels(self._budget.psp, "forfeited").inc(len(slots) - len(allowed))
        for attempt, slot in zip(allowed, slots[: len(allowed)], strict=True):
            self._go(self._call_in(slot, attempt))

    def _expired(self, attempt: NewAttempt) -> bool:
        """Only a payment's first send can come too late, and only that is assessed."""
        return attempt.assessed is not None and self._clock.now_us() >= attempt.claim.payment.expires_at_us

    async def _call_in(self, slot: Slot, attempt: NewAttempt) -> None:
        while (left_s := slot.opens - self._clock.monotonic()) > 0:
            await asyncio.sleep(left_s)
        if self._clock.monotonic() < slot.closes:
            metrics.BUDGET_SLOTS.labels(self._budget.psp, "used").inc()
            await self._pipeline.call(attempt)
            return
        metrics.BUDGET_SLOTS.labels(self._budget.psp, "forfeited").inc()
        try:
            await withdraw(self._pool, attempt)
            self.wake()
        except OperationalError as error:
            merchant, checkout_id, operation_id = attempt.claim.key
            _log.warning(
                "attempt_not_withdrawn",
                detail=f"{error.message} It was not sent; it is resolved like a lost answer after its lease.",
                merchant=merchant,
                checkout_id=checkout_id,
                operation_id=operation_id,
            )

    def _go(self, way: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(finishing(way))
        self._ways.add(task)
        metrics.IN_FLIGHT.inc()
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._ways.discard(task)
        metrics.IN_FLIGHT.dec()
        if len(self._ways) == self._policy.concurrency - 1:
            self.wake()


async def _within(timeout_s: float, event: asyncio.Event) -> None:
    """Returns at the event, or when the time is over."""
    if timeout_s <= 0:
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
