"""Calls between processes: delayed, lost on the way there or back, doubled, overtaken, cut off.

A call that finds nobody listening is Refused; one that was sent and not answered is Lost, whatever came of
it. A doubled call is carried out twice and answered once: as if its client had asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from tests.simulation.loop import Process, VirtualLoop, current

T = TypeVar("T")


class Refused(Exception):
    """No connection: nothing was sent."""


class Lost(Exception):
    """Sent, and never answered."""


@dataclass
class Weather:
    """Shares of all calls, and a delay in microseconds."""

    drop: float = 0.0
    double: float = 0.0
    slow: float = 0.0
    slow_us: int = 1_000_000
    delay_us: int = 300


class Network:
    def __init__(self, loop: VirtualLoop, random: Random) -> None:
        self._loop = loop
        self._random = random
        self.weather = Weather()
        self.cut: dict[frozenset[str], None] = {}

    async def call(
        self, to: Callable[[], Process | None], act: Callable[[], Awaitable[T]], timeout_s: float
    ) -> T:
        """What `act` comes to in the process that is `to` when the call arrives. Raises Refused, Lost, and
        what `act` raises."""
        caller = current()
        target = to()
        answer: asyncio.Future[Any] = self._loop.create_future()
        if target is None or not target.alive:
            await asyncio.sleep(self._delay_us() / 1e6)
            raise Refused
        if frozenset((caller.name, target.name)) in self.cut:
            await asyncio.sleep(timeout_s)
            raise Lost
        if self._random.random() >= self.weather.drop:
            self._loop.post(target, self._delay_us(), self._arrive, target, caller, act, answer)
            if self.weather.double and self._random.random() < self.weather.double:
                self._loop.post(target, 3 * self._delay_us(), self._arrive, target, caller, act, None)
        try:
            async with asyncio.timeout(timeout_s):
                result: T = await answer
        except TimeoutError:
            raise Lost from None
        return result

    def _arrive(
        self,
        target: Process,
        caller: Process,
        act: Callable[[], Awaitable[Any]],
        answer: asyncio.Future[Any] | None,
    ) -> None:
        async def carry_out() -> None:
            try:
                result, error = await act(), None
            except Exception as raised:  # answered, whatever it is
                result, error = None, raised
            if answer is not None and self._random.random() >= self.weather.drop:
                self._loop.post(caller, self._delay_us(), _resolve, answer, result, error)

        target.spawn(carry_out())

    def _delay_us(self) -> int:
        weather = self.weather
        delay_us = int(self._random.expovariate(1.0) * weather.delay_us) + 20
        if weather.slow and self._random.random() < weather.slow:
            delay_us += int(self._random.random() * weather.slow_us)
        return delay_us


def _resolve(answer: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)
