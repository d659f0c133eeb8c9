"""Integer minor units and ISO 4217. There is no float and no Decimal anywhere near an amount."""

from __future__ import annotations

from typing import Final

from iso4217 import Currency

AMOUNT_MAX: Final = 99_999_999_999

# Alphabetic code → minor-unit exponent (JPY 0, USD 2, KWD 3, CLF 4). Codes without a minor unit (metals,
# testing, "no currency") are not money that can be charged, so they are not here.
EXPONENT: Final[dict[str, int]] = {
    currency.code: currency.exponent for currency in Currency if currency.exponent is not None
}


def is_currency(code: str) -> bool:
    return code in EXPONENT


def format_amount(amount: int, currency: str) -> str:
    """`12.34 USD`, `1234 JPY`, `1.234 KWD`: for people; never parsed back."""
    exponent = EXPONENT[currency]
    if exponent == 0:
        return f"{amount} {currency}"
    whole, fraction = divmod(amount, 10**exponent)
    return f"{whole}.{fraction:0{exponent}d} {currency}"
