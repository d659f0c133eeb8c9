"""The budget of a PSP: at most R calls in any second, over all processors, retries and look-ups included.

1. Slots are 1.1/R s apart on Postgres' clock, which alone counts; the processors' may say what they like.
2. A slot is open for 0.1 s and forfeited after. So R+1 calls lie at least R · 1.1/R − 0.1 = 1 s apart.
3. A reservation that can't be had (Postgres is down, or the slots reach too far ahead) is no permission.

What is reserved survives every crash; what a dead processor had reserved is wasted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from processor import metrics
from processor.storage.budgets import look_ahead, reserve
from processor.storage.database import Pool
from tollgate.clock import Clock

SLOT_OPEN_S: Final = 0.1
_SPACING: Final = 1.1
_BATCH_S: Final = 0.25  # of the budget in one reservation: fewer transactions, and nobody waits long for it
_AGAIN_MIN_S: Final = 0.05

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class BudgetPolicy:
    """`horizon_s`: how far ahead a reservation may begin. A claim that waits for it must outlive it."""

    per_second: float
    horizon_s: float

    @property
    def interval_s(self) -> float:
        return _SPACING / self.per_second

    @property
    def batch_max(self) -> int:
        return max(1, int(self.per_second * _BATCH_S))

    @property
    def ahead_max_s(self) -> float:
        """No reservation leads further: what does was left by a clock that was set back."""
        return self.horizon_s + self.batch_max * self.interval_s


@dataclass(frozen=True, slots=True)
class Slot:
    """When one call may begin, in this process' monotonic seconds."""

    opens: float
    closes: float


@dataclass(frozen=True, slots=True)
class Exhausted:
    """Everything up to the horizon is reserved."""

    again_in_s: float


def slots_from(begun: float, ended: float, first_in_s: float, count: int, interval_s: float) -> list[Slot]:
    """Postgres looked at its clock somewhere between `begun` and `ended`: a slot opens when it is open for
    certain and closes before it may have closed. A statement that took long leaves nothing of it.
    """
    return [
        Slot(ended + offset_s, begun + offset_s + SLOT_OPEN_S)
        for offset_s in (first_in_s + number * interval_s for number in range(count))
    ]


class Budget(Protocol):
    """One PSP's, as one processor uses it."""

    psp: str
    policy: BudgetPolicy

    async def reserve(self, count: int) -> Sequence[Slot] | Exhausted:
        """`count` slots in order, or none. Raises OperationalError: then nothing may be sent."""
        ...


class SharedBudget:
    """The one in Postgres."""

    def __init__(self, pool: Pool, psp: str, policy: BudgetPolicy, clock: Clock) -> None:
        self.psp = psp
        self.policy = policy
        self._pool = pool
        self._clock = clock

    async def reserve(self, count: int) -> Sequence[Slot] | Exhausted:
        if not 1 <= count <= self.policy.batch_max:
            raise ValueError(f"1 to {self.policy.batch_max} slots can be reserved at a time, not {count}")
        begun = self._clock.monotonic()
        seconds = count * self.policy.interval_s
        first_in_s = await reserve(self._pool, self.psp, seconds, self.policy.horizon_s)
        if first_in_s is None:
            return await self._exhausted()
        metrics.BUDGET_WAIT.labels(self.psp).observe(first_in_s)
        return slots_from(begun, self._clock.monotonic(), first_in_s, count, self.policy.interval_s)

    async def _exhausted(self) -> Exhausted:
        ahead_s, clamped = await look_ahead(self._pool, self.psp, self.policy.ahead_max_s)
        metrics.BUDGET_EXHAUSTED.labels(self.psp).inc()
        if clamped:
            metrics.BUDGET_CLAMPED.labels(self.psp).inc()
            _log.error(
                "budget_clamped",
                psp=self.psp,
                detail=f"It was reserved {ahead_s:.1f} s ahead, as nobody does: Postgres' clock was set "
                f"back. Calls go on {self.policy.ahead_max_s:.1f} s from now; look after that clock.",
            )
        return Exhausted(max(_AGAIN_MIN_S, min(ahead_s, self.policy.ahead_max_s) - self.policy.horizon_s))
