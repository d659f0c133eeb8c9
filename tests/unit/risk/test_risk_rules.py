"""The rules: deterministic, bounded, silent by default, and exact about their file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from processor.risk import Assessment, RiskSettings, RuleAssessor, Rules, assess_amount
from processor.risk.rules import Velocity, assess, counted_rules
from processor.risk.rules_file import load_rules
from tollgate.errors import ConfigurationError
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


FILE = """
[[over]]
currency = "EUR"
amount = 500_000
points = 40

[[velocity]]
of = "customer"
window_s = 3600
more_than = 2
points = 50

[currencies]
XOF = 30

[deny]
customers = ["cus_1"]
payment_methods = ["pm_stolen"]

[merchants.acme]
decline_at = 60
"""


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    path = tmp_path / "rules.toml"
    path.write_text(FILE)
    return load_rules(path)


def payment(**fields: object) -> Payment:
    return Payment(**{"merchant": "acme", "amount": 100, "currency": "EUR"} | fields)  # type: ignore[arg-type]


def test_points_add_up_and_each_is_told_by_its_reason(rules: Rules) -> None:
    large = payment(amount=500_001, customer_id="cus_7")
    (velocity,) = counted_rules(rules, large)
    assert assess(large, rules, {velocity: 2}, 100) == Assessment(36 + 40, ("amount_over",), declined=True)
    made = assess(large, rules, {velocity: 3}, 100)
    assert made == Assessment(99, ("amount_over", "customer_velocity"), declined=True)
    assert assess(payment(currency="XOF"), rules, {}, 100) == Assessment(57, ("currency",), declined=False)
    assert assess(payment(amount=500_000), rules, {}, 100).reasons == ()


def test_a_merchant_s_own_threshold_stands_before_the_general_one(rules: Rules) -> None:
    scored = payment(amount=500_001)  # 76
    assert assess(scored, rules, {}, 100).declined
    other = payment(amount=500_001, merchant="other")
    assert not assess(other, rules, {}, 77).declined
    assert assess(other, rules, {}, 76).declined


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"customer_id": "cus_1"}, "denied_customer"),
        ({"payment_method": "pm_stolen"}, "denied_payment_method"),
    ],
)
def test_who_is_on_a_deny_list_is_declined_whatever_the_threshold(
    rules: Rules, fields: dict[str, str], reason: str
) -> None:
    denied = assess(payment(merchant="other", **fields), rules, {}, 100)
    assert (denied.score, denied.reasons, denied.declined) == (99, (reason,), True)


def test_a_payment_without_a_customer_is_not_counted_for_customers(rules: Rules) -> None:
    assert counted_rules(rules, payment()) == []
    assert [type(rule) for rule in counted_rules(rules, payment(customer_id="cus_2"))] == [Velocity]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("decline_at = 3", "decline_at"),
        ('[[velocity]]\nof = "city"\nwindow_s = 1\nmore_than = 1\npoints = 1', "velocity.0.of"),
        ('[[over]]\ncurrency = "eur"\namount = -1\npoints = 100', "over.0.amount"),
        ("[merchants.ACME]\ndecline_at = 3", "merchants"),
        ("[", "no TOML"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_the_place(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=problem):
        load_rules(path)


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="can't be read"):
        load_rules(tmp_path / "none.toml")


def test_rules_are_set_where_they_are_applied() -> None:
    with pytest.raises(ValidationError, match="address"):
        RiskSettings(address="127.0.0.1:7", decline_at=50)


def test_the_example_that_is_shipped_can_be_used() -> None:
    rules = load_rules(Path(__file__).parents[3] / "examples/risk.toml")
    assert rules.velocity
    assert rules.decline_at("acme", 100) == 80
