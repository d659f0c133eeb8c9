"""Payments that are claimed by the intake that brings them: stored with their first call, in one transaction.

It saves each of them a claim and a store of its own. Only as many are begun as there is room for in the
dispatcher, and only while it is not behind: what waits for a claim came first. Where there is no room intake
waits for it, so that what can't be sent yet stays in Kafka; but not for longer than `PATIENCE_S`, so that a
PSP that hangs keeps no payment out of Postgres. Then they are stored to be claimed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from processor.dispatch import Dispatcher
from processor.pipeline import Pipeline
from processor.storage.attempts import NewAttempt
from processor.storage.intake import NONE, Acceptance, FirstCalls, firsts_of
from tollgate.clock import Clock

PATIENCE_S: Final = 1.0


class Beginnings:
    """`except_psps` have a budget: their calls wait for slots."""

    def __init__(
        self,
        pipeline: Pipeline,
        dispatcher: Dispatcher,
        except_psps: Collection[str],
        lease_s: float,
        clock: Clock,
    ) -> None:
        self._pipeline = pipeline
        self._dispatcher = dispatcher
        self._except_psps = frozenset(except_psps)
        self._lease_s = lease_s
        self._clock = clock

    async def reserve(self, wanted: int) -> Room:
        """Room for at most so many; none of it when nothing is to be begun. It is to be closed."""
        return Room(self, await self._dispatcher.reserve(wanted, PATIENCE_S))

    def first_calls(self, acceptances: Sequence[Acceptance], most: int) -> FirstCalls:
        """Of at most so many of them, under leases that begin now."""
        lease_ends = self._clock.monotonic() + self._lease_s
        attempts: dict[tuple[str, str], NewAttempt] = {}
        for item in firsts_of(acceptances).values():
            if len(attempts) == most:
                break
            if item.payment.psp in self._except_psps:
                continue
            if (attempt := self._pipeline.begun(item.payment, lease_ends)) is not None:
                attempts[item.key] = attempt
        return FirstCalls(attempts, self._lease_s)

    def carry_out(self, stored: Sequence[NewAttempt]) -> None:
        self._dispatcher.carry_out(stored)

    def give_back(self, count: int) -> None:
        self._dispatcher.give_back(count)


class Room:
    """Reserved for one batch. What it does not use is given back by `close`."""

    def __init__(self, beginnings: Beginnings, left: int) -> None:
        self._beginnings = beginnings
        self.left = left

    def first_calls(self, acceptances: Sequence[Acceptance]) -> FirstCalls:
        return self._beginnings.first_calls(acceptances, self.left) if self.left else NONE

    def go(self, stored: Sequence[NewAttempt]) -> None:
        """They are durable: their calls are made."""
        self.left -= len(stored)
        self._beginnings.carry_out(stored)

    def close(self) -> None:
        self._beginnings.give_back(self.left)
        self.left = 0
