from __future__ import annotations

import pytest

from tollgate import money


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [
        (1234, "USD", "12.34 USD"),
        (1234, "JPY", "1234 JPY"),
        (1234, "KWD", "1.234 KWD"),
        (1234, "CLF", "0.1234 CLF"),
        (5, "EUR", "0.05 EUR"),
    ],
)
def test_amounts_are_shown_with_their_currencys_exponent(amount: int, currency: str, shown: str) -> None:
    assert money.format_amount(amount, currency) == shown


@pytest.mark.parametrize("code", ["XTS", "XAU", "usd", "US", "USDX", "USD\n", "", "EURO"])
def test_what_is_not_money_is_no_currency(code: str) -> None:
    assert not money.is_currency(code)
