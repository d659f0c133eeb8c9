"""The one rule that says what a card number is (I8): used to refuse, never to extract.

A card number is 13-19 digits, unbroken or grouped 4-4-4-4, 4-6-4 or 4-6-5 by spaces or dashes, not next to a
letter or digit, with an issuer's prefix, that brand's length, and Luhn. Anything looser refuses time stamps
and UUIDs. Prefixes and lengths: ISO/IEC 7812 as published by the schemes.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

# The look-ahead makes matches overlap: in `1234-4111-1111-1111-1111` the second group starts a number too.
_CANDIDATE: Final = re.compile(
    r"(?<![^\W_])(?=("
    r"[0-9]{13,19}"
    r"|[0-9]{4}[ -][0-9]{4}[ -][0-9]{4}[ -][0-9]{4}"
    r"|[0-9]{4}[ -][0-9]{6}[ -][0-9]{4,5}"
    r")(?![^\W_]))"
)
# A superset that is cheap on raw bytes: with digits, separators and the rest made alike, every candidate
# holds one of three strings, and looking for a string costs a fraction of matching a pattern.
_ALIKE: Final = bytes(
    ord("0") if chr(byte).isdigit() and byte < 128 else ord("-") if chr(byte) in " -" else ord("x")
    for byte in range(256)
)
_UNBROKEN: Final = b"0" * 13
_IN_FOURS: Final = b"0000-0000-0000-"
_IN_4_6_4: Final = b"0000-000000-"


class _Brand(NamedTuple):
    """Inclusive ranges of equally long prefixes, and the lengths that this brand issues."""

    ranges: tuple[tuple[str, str], ...]
    lengths: frozenset[int]


def _brand(lengths: range | tuple[int, ...], *ranges: str) -> _Brand:
    bounds = (item.partition("-") for item in ranges)
    return _Brand(tuple((low, high or low) for low, _, high in bounds), frozenset(lengths))


BRANDS: Final = {
    "visa": _brand((13, 16, 19), "4"),
    "mastercard": _brand((16,), "51-55", "2221-2720"),
    "american_express": _brand((15,), "34", "37"),
    "discover": _brand(range(16, 20), "6011", "644-649", "65", "622126-622925"),
    "diners": _brand((14, 16, 19), "300-305", "3095", "36", "38-39"),
    "jcb": _brand(range(16, 20), "3528-3589"),
    "unionpay": _brand(range(16, 20), "62"),
    "maestro": _brand(
        range(13, 20), "5018", "5020", "5038", "5893", "6304", "6759", "6761-6763", "676770", "676774"
    ),
}


def holds_card_number(text: str) -> bool:
    """Whether a card number stands anywhere in `text`."""
    return any(_is_card_number(match[1]) for match in _CANDIDATE.finditer(text))


def may_hold_card_number(raw: bytes) -> bool:
    """False only when no text in `raw`, which is UTF-8, that stands there unescaped holds a card number.

    Time stamps and ids of digits are common: those that look alike are matched before they are suspected.
    """
    return looks_like_one(raw) and holds_card_number(raw.decode())


def looks_like_one(raw: bytes) -> bool:
    """False only when no card number can stand in `raw`, whatever it is: the cheap look before the rule."""
    alike = raw.translate(_ALIKE)
    return _UNBROKEN in alike or _IN_FOURS in alike or _IN_4_6_4 in alike


def _is_card_number(candidate: str) -> bool:
    digits = candidate.replace(" ", "").replace("-", "")
    return _has_issuer(digits) and _passes_luhn(digits)


def _has_issuer(digits: str) -> bool:
    return any(
        len(digits) in brand.lengths and any(low <= digits[: len(low)] <= high for low, high in brand.ranges)
        for brand in BRANDS.values()
    )


def _passes_luhn(digits: str) -> bool:
    """ISO/IEC 7812-1 annex B: double every second digit from the right, cast out nines, sum to 0 mod 10."""
    odd = sum(int(digit) for digit in digits[-1::-2])
    even = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (odd + even) % 10 == 0
