"""The amount rule: deterministic, bounded, and silent by default."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from processor.risk import Assessment, RiskSettings, RuleAssessor, assess_amount
from tollgate.money import AMOUNT_MAX, EXPONENT
from tollgate.v1.payment_pb2 import Payment

AMOUNTS = st.integers(1, AMOUNT_MAX)
CURRENCIES = st.sampled_from(sorted(EXPONENT))


@pytest.mark.parametrize(
    ("amount", "currency", "score"),
    [(99, "USD", 0), (999, "USD", 9), (30_000, "USD", 27), (30_000, "JPY", 45), (30_000, "KWD", 18)],
)
def test_the_score_counts_the_digits_of_major_units(amount: int, currency: str, score: int) -> None:
    assert assess_amount(amount, currency) == (score, ())


@given(AMOUNTS, CURRENCIES)
def test_a_score_is_from_0_to_99(amount: int, currency: str) -> None:
    score, _ = assess_amount(amount, currency)
    assert 0 <= score <= 99


@given(AMOUNTS, AMOUNTS, CURRENCIES)
def test_more_money_never_scores_less(one: int, other: int, currency: str) -> None:
    smaller, larger = sorted((one, other))
    assert assess_amount(smaller, currency)[0] <= assess_amount(larger, currency)[0]


@given(AMOUNTS, CURRENCIES)
async def test_by_default_no_amount_is_declined(amount: int, currency: str) -> None:
    assessor = RuleAssessor(RiskSettings().decline_at)
    assert not (await assessor.assess(Payment(amount=amount, currency=currency))).declined


async def test_a_score_at_the_threshold_is_declined_with_its_reason() -> None:
    payment = Payment(amount=10_000_000, currency="USD")
    assert await RuleAssessor(54).assess(payment) == Assessment(54, ("large_amount",), declined=True)
    assert await RuleAssessor(55).assess(payment) == Assessment(54, ("large_amount",), declined=False)


@pytest.mark.parametrize("threshold", [0, 101])
def test_a_threshold_outside_the_scores_is_refused(threshold: int) -> None:
    with pytest.raises(ValidationError):
        RiskSettings(decline_at=threshold)
