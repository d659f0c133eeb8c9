"""Amounts as Adyen counts them: in minor units, which for four currencies are not those of ISO 4217.

https://docs.adyen.com/development-resources/currency-codes/
"""

from __future__ import annotations

from typing import Final

from tollgate.money import EXPONENT

# 1 CLP is 1 in ISO's minor units and 100 in Adyen's; 1 IDR is 100 in ISO's and 1 in Adyen's.
_ADYENS_EXPONENT: Final = {"CLP": 2, "CVE": 0, "IDR": 0, "ISK": 2}


def adyens_value(amount: int, currency: str) -> int | None:
    """None when Adyen can't express the amount: it has fractions of Adyen's smallest unit."""
    shift = _shift(currency)
    if shift >= 0:
        return int(amount * 10**shift)
    value, rest = divmod(amount, 10**-shift)
    return None if rest else value


def amount_in(told: object) -> tuple[int, str] | None:
    """(minor units of ISO 4217, currency) of Adyen's `{"value": …, "currency": …}`; None when it is none."""
    if not isinstance(told, dict):
        return None
    value, currency = told.get("value"), told.get("currency")
    if type(value) is not int or not isinstance(currency, str) or value < 0:
        return None
    shift = _shift(currency)
    if shift <= 0:
        return int(value * 10**-shift), currency
    amount, rest = divmod(value, 10**shift)
    return None if rest else (amount, currency)


def _shift(currency: str) -> int:
    """How many decimals Adyen has more than ISO 4217."""
    return _ADYENS_EXPONENT[currency] - EXPONENT[currency] if currency in _ADYENS_EXPONENT else 0
