"""The rules: points for what a payment is, added up to a score. Pure.

Without a file there is one rule, the amount's magnitude, and nothing is declined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from processor.risk.assessor import SCORE_MAX, Assessment
from tollgate.ids import MERCHANT
from tollgate.money import AMOUNT_MAX, EXPONENT
from tollgate.v1.payment_pb2 import Payment

_POINTS_PER_DIGIT: Final = 9
LARGE_DIGITS: Final = 6  # 100,000 of whatever the currency counts in
UNREACHABLE: Final = SCORE_MAX + 1

Points = Annotated[int, Field(ge=0, le=SCORE_MAX)]
Threshold = Annotated[int, Field(ge=1, le=UNREACHABLE)]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
Kind = Literal["customer", "payment_method"]


class _Table(BaseModel):
    """Frozen, exact: a key that is misspelt is refused, not ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Over(_Table):
    """Points for an amount above `amount`, in minor units of `currency`."""

    currency: Currency
    amount: Annotated[int, Field(ge=0, le=AMOUNT_MAX)]
    points: Points


class Velocity(_Table):
    """Points for more than so many payments of one customer or payment method at a merchant within a window,
    the assessed one included.
    """

    of: Kind
    window_s: Annotated[float, Field(gt=0, le=30 * 24 * 3600, strict=False)]
    more_than: Annotated[int, Field(ge=0, le=10_000)]
    points: Points


class Deny(_Table):
    """Declined whatever the score: its score is the highest."""

    customers: frozenset[str] = Field(default=frozenset(), strict=False)
    payment_methods: frozenset[str] = Field(default=frozenset(), strict=False)


class MerchantRules(_Table):
    decline_at: Threshold


class Rules(_Table):
    """The whole file."""

    over: list[Over] = []
    velocity: list[Velocity] = []
    currencies: dict[Currency, Points] = {}
    deny: Deny = Deny()
    merchants: dict[Annotated[str, Field(pattern=f"^{MERCHANT.pattern}$")], MerchantRules] = {}

    def decline_at(self, merchant: str, default: int) -> int:
        """A score at or above it is declined; 100 is out of reach."""
        own = self.merchants.get(merchant)
        return default if own is None else own.decline_at


def assess_amount(amount: int, currency: str) -> tuple[int, tuple[str, ...]]:
    """Nine points for every digit of the amount in major units: 9.99 USD 9, 300 USD 27, a billion 90.

    A magnitude, not a value: without exchange rates the major unit is all there is to go by.
    """
    major = amount // 10 ** EXPONENT.get(currency, 0)
    digits = len(str(major)) if major else 0
    reasons = ("large_amount",) if digits >= LARGE_DIGITS else ()
    return min(SCORE_MAX, digits * _POINTS_PER_DIGIT), reasons


def subject_of(payment: Payment, kind: Kind) -> str:
    """Empty when the payment names none: then it is not counted."""
    return payment.customer_id if kind == "customer" else payment.payment_method


def counted_rules(rules: Rules, payment: Payment) -> list[Velocity]:
    """The velocity rules that this payment is counted for."""
    return [rule for rule in rules.velocity if subject_of(payment, rule.of)]


def assess(payment: Payment, rules: Rules, counts: Mapping[Velocity, int], decline_at: int) -> Assessment:
    """`counts` answers each of `counted_rules`; `decline_at` is for merchants without one of their own."""
    points, reasons = assess_amount(payment.amount, payment.currency)
    earned: list[tuple[int, str]] = [
        (rule.points, "amount_over")
        for rule in rules.over
        if rule.currency == payment.currency and payment.amount > rule.amount
    ]
    if payment.currency in rules.currencies:
        earned.append((rules.currencies[payment.currency], "currency"))
    earned += [
        (rule.points, f"{rule.of}_velocity") for rule, count in counts.items() if count > rule.more_than
    ]
    denied = _denied(payment, rules.deny)
    score = SCORE_MAX if denied else min(SCORE_MAX, points + sum(given for given, _ in earned))
    told = dict.fromkeys((*reasons, *(reason for _, reason in earned), *denied))
    return Assessment(
        score, tuple(told), declined=bool(denied) or score >= rules.decline_at(payment.merchant, decline_at)
    )


def _denied(payment: Payment, deny: Deny) -> Sequence[str]:
    return [
        reason
        for reason, subject, listed in (
            ("denied_customer", payment.customer_id, deny.customers),
            ("denied_payment_method", payment.payment_method, deny.payment_methods),
        )
        if subject in listed
    ]
