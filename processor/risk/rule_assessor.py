"""The assessor that applies the rules, in the processor or in a process of its own."""

from __future__ import annotations

import asyncio
from typing import Final

from processor.risk.assessor import Assessment
from processor.risk.rules import Rules, assess, counted_rules
from processor.risk.velocity import Counting
from tollgate.errors import OperationalError
from tollgate.v1.payment_pb2 import Payment

TIMEOUT_S: Final = 1.0


class RuleAssessor:
    """`decline_at` is for merchants that have no threshold of their own in the rules."""

    def __init__(
        self,
        decline_at: int,
        rules: Rules | None = None,
        counting: Counting | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._decline_at = decline_at
        self._rules = rules or Rules()
        self._counting = counting
        self._timeout_s = timeout_s

    def assess_at_once(self, payment: Payment) -> Assessment | None:
        if self._counting is not None and counted_rules(self._rules, payment):
            return None
        return assess(payment, self._rules, {}, self._decline_at)

    async def assess(self, payment: Payment) -> Assessment:
        """Raises OperationalError when what is to be counted can't be, in time."""
        counted = counted_rules(self._rules, payment)
        if not counted or self._counting is None:
            return assess(payment, self._rules, {}, self._decline_at)
        try:
            async with asyncio.timeout(self._timeout_s):
                counts = await self._counting.counts(payment, counted)
        except TimeoutError:
            raise OperationalError(
                f"Risk could not count within {self._timeout_s:g} s. Nothing is sent; it is tried again."
            ) from None
        return assess(payment, self._rules, counts, self._decline_at)
