"""Amounts as Stripe counts them, where that is not ISO 4217's minor unit. Nothing is ever rounded.

Stripe takes ISK and UGX, which have no minor unit, in hundredths of whole units, and MGA, whose minor unit is
a hundredth, in whole ariary (https://docs.stripe.com/currencies#special-cases).
"""

from __future__ import annotations

from typing import Final

_HUNDREDTHS: Final = frozenset({"ISK", "UGX"})
_WHOLE: Final = frozenset({"MGA"})


def to_stripe(amount: int, currency: str) -> str:
    """As it is sent. What Stripe can't take is sent as it is, with its fraction, and refused there."""
    if currency in _HUNDREDTHS:
        return str(amount * 100)
    if currency in _WHOLE:
        whole, fraction = divmod(amount, 100)
        return f"{whole}.{fraction:02d}" if fraction else str(whole)
    return str(amount)


def from_stripe(amount: int, currency: str) -> int | None:
    """In minor units. None: an amount that this currency doesn't have."""
    if currency in _HUNDREDTHS:
        whole, fraction = divmod(amount, 100)
        return None if fraction else whole
    return amount * 100 if currency in _WHOLE else amount
