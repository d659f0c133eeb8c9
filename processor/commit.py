"""Group commit of conclusions: what became ready during one transaction goes into the next.

One transaction in flight; after a large one the next gathers for a moment (`tollgate/pace`). While Postgres
is down the conclusions wait here, bounded by the number of operations in flight; a lease that runs out
meanwhile makes the conclusion late evidence, never a second truth. A content that Postgres refuses is found
by committing one by one, and left to its lease with an alarm.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from processor import metrics
from processor.outcome import Decision
from processor.patience import Health, persist
from processor.psp.interface import OperationKind
from processor.storage.database import Pool
from processor.storage.operations import Conclusion, conclude
from tollgate.clock import Clock
from tollgate.errors import RejectedInput
from tollgate.pace import Pace
from tollgate.status import NAME

BATCH_MAX: Final = 500
PACE: Final = Pace(each_s=0.003, most_s=0.15)

_log = structlog.get_logger()

Committed = Sequence[tuple[Conclusion, Decision | None]]


@dataclass(frozen=True, slots=True)
class _Waiting:
    conclusion: Conclusion
    done: asyncio.Future[None]


class Committer:
    """`on_committed` learns of every commit: the relay and the dispatcher are woken by it."""

    def __init__(
        self, pool: Pool, clock: Clock, health: Health, on_committed: Callable[[Committed], None]
    ) -> None:
        self._pool = pool
        self._clock = clock
        self._health = health
        self._on_committed = on_committed
        self._queue: deque[_Waiting] = deque()
        self._filled = asyncio.Event()

    async def commit(self, conclusion: Conclusion) -> None:
        """Returns when it is durable, or refused for good."""
        waiting = _Waiting(conclusion, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._filled.set()
        await waiting.done

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._filled.wait()
            begun = self._clock.monotonic()
            batch = self._next_batch()
            await self._commit([waiting.conclusion for waiting in batch])
            for waiting in batch:
                if not waiting.done.done():
                    waiting.done.set_result(None)
            if len(batch) < BATCH_MAX:
                await PACE.rest(len(batch), begun, self._clock)
            if not self._queue:
                self._filled.clear()

    def _next_batch(self) -> list[_Waiting]:
        """At most one conclusion a payment: the second has to see what the first made of the row."""
        batch: dict[tuple[str, str], _Waiting] = {}
        later: list[_Waiting] = []
        while self._queue and len(batch) < BATCH_MAX:
            waiting = self._queue.popleft()
            payment = waiting.conclusion.claim.payment
            if batch.setdefault((payment.merchant, payment.checkout_id), waiting) is not waiting:
                later.append(waiting)
        self._queue.extendleft(reversed(later))
        return list(batch.values())

    async def _commit(self, conclusions: Sequence[Conclusion]) -> None:
        async def act() -> Committed:
            return await conclude(self._pool, conclusions, self._clock.now_us())

        try:
            committed = await persist(self._health, "postgres", act)
        except RejectedInput as error:
            if len(conclusions) == 1:
                _refused(conclusions[0], error)
                return
            for conclusion in conclusions:
                await self._commit([conclusion])
            return
        count_committed(committed, self._clock.now_us())
        self._on_committed(committed)


def _refused(conclusion: Conclusion, error: RejectedInput) -> None:
    merchant, checkout_id, operation_id = conclusion.claim.key
    metrics.ANOMALIES.labels("outcome_refused").inc()
    _log.error(
        "outcome_refused",
        detail=f"{error.message} It is taken up again when its lease ends; look at the PSP's answer.",
        merchant=merchant,
        checkout_id=checkout_id,
        operation_id=operation_id,
    )


def count_committed(committed: Committed, now_us: int) -> None:
    """What was decided, in metrics; what a person must know, in the log too."""
    for conclusion, decision in committed:
        merchant, checkout_id, operation_id = conclusion.claim.key
        ids = {"merchant": merchant, "checkout_id": checkout_id, "operation_id": operation_id}
        if decision is None:
            metrics.STALE_LEASES.inc()
            _log.warning(
                "lease_lost", detail="The answer is kept as evidence; whoever holds the lease decides.", **ids
            )
            continue
        if decision.payment and conclusion.claim.kind is OperationKind.PAYMENT:
            metrics.OUTCOMES.labels(NAME[decision.payment.status]).inc()
            waited_s = (now_us - decision.payment.created_at_us) / 1e6
            metrics.ACCEPTANCE_TO_OUTCOME.observe(max(0.0, waited_s))
        elif decision.settled is not None:
            ending = "succeeded" if decision.settled else "failed"
            metrics.OPERATIONS_ENDED.labels(conclusion.claim.kind.value, ending).inc()
        if decision.anomaly:
            metrics.ANOMALIES.labels(decision.anomaly).inc()
            _log.error(
                "anomaly",
                detail=f"The PSP's word contradicts the payment ({decision.anomaly}). "
                "It is kept in anomalies; compare the two.",
                **ids,
            )
        if decision.parked_reason:
            metrics.PARKED.inc()
            _log.error(
                "operation_parked",
                detail=f"{decision.parked_reason}. Nothing is sent any more; ask the PSP what stands.",
                **ids,
            )
