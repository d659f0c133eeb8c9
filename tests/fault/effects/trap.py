"""Waits on every processor's wires for one moment, and springs there once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tests.fault.effects.plan import Moment

Strike = Callable[[int], Awaitable[bool]]
T = TypeVar("T")


class Trap:
    """A wire calls `reached` and holds its message meanwhile; a strike says whether it is then passed on."""

    def __init__(self) -> None:
        self._moment: Moment | None = None
        self._passing = 0
        self._strike: Strike | None = None
        self._striking: asyncio.Task[bool] | None = None
        self.victim: int | None = None

    def set(self, moment: Moment, passing: int, strike: Strike) -> None:
        """`strike` gets the number of the processor whose message it is."""
        self._moment, self._passing, self._strike = moment, passing, strike
        self._striking = self.victim = None

    async def reached(self, processor: int, moment: Moment) -> bool:
        if moment != self._moment or self._strike is None:
            return True
        if self._passing:
            self._passing -= 1
            return True
        self._moment, self.victim = None, processor
        self._striking = asyncio.create_task(_awaited(self._strike(processor)))
        return await asyncio.shield(self._striking)  # the wire may break under the strike

    async def struck(self) -> None:
        """Returns when the strike is over. Raises AssertionError when the moment never came."""
        moment, self._moment = self._moment, None
        assert self._striking is not None, f"nothing came to the moment {moment}"
        await self._striking


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable
