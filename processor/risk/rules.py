"""The rules that run inside the processor. Pure; one for now: the amount's magnitude."""

from __future__ import annotations

from typing import Final

from processor.risk.assessor import SCORE_MAX, Assessment
from tollgate.money import EXPONENT
from tollgate.v1.payment_pb2 import Payment

_POINTS_PER_DIGIT: Final = 9
LARGE_DIGITS: Final = 6  # 100,000 of whatever the currency counts in


def assess_amount(amount: int, currency: str) -> tuple[int, tuple[str, ...]]:
    """Nine points for every digit of the amount in major units: 9.99 USD 9, 300 USD 27, a billion 90.

    A magnitude, not a value: without exchange rates the major unit is all there is to go by.
    """
    major = amount // 10 ** EXPONENT.get(currency, 0)
    digits = len(str(major)) if major else 0
    reasons = ("large_amount",) if digits >= LARGE_DIGITS else ()
    return min(SCORE_MAX, digits * _POINTS_PER_DIGIT), reasons


class RuleAssessor:
    """Applies the rules and the threshold."""

    def __init__(self, decline_at: int) -> None:
        self._decline_at = decline_at

    async def assess(self, payment: Payment) -> Assessment:
        score, reasons = assess_amount(payment.amount, payment.currency)
        return Assessment(score, reasons, declined=score >= self._decline_at)
