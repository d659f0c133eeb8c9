"""How the processor waits for what is down: longer and longer, with a reason for /readyz, and no end but the
stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog

from tollgate.errors import OperationalError
from tollgate.growing_wait import GrowingWait

_FIRST_S: Final = 0.05
_MOST_S: Final = 2.0

T = TypeVar("T")
_log = structlog.get_logger()


class Health:
    """Why the processor is not ready, by dependency. Ready when there is no reason."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def report(self, dependency: str, reason: str | None) -> None:
        if reason is None:
            self._reasons.pop(dependency, None)
        else:
            self._reasons[dependency] = reason

    def not_ready_reason(self) -> str | None:
        return " ".join(self._reasons.values()) or None


def patient_wait() -> GrowingWait:
    return GrowingWait(_FIRST_S, _MOST_S)


async def persist(
    health: Health, dependency: str, act: Callable[[], Awaitable[T]], until: Callable[[], bool] | None = None
) -> T:
    """Calls `act` until it succeeds. Raises the last OperationalError once `until` says True."""
    wait = patient_wait()
    while True:
        try:
            result = await act()
        except OperationalError as error:
            health.report(dependency, error.message)
            pause_s = wait.next()
            _log.warning("dependency_down", dependency=dependency, detail=error.message, pause_s=pause_s)
            if until is not None and until():
                raise
            await asyncio.sleep(pause_s)
        else:
            health.report(dependency, None)
            return result
