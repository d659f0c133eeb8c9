"""What POST /v1/payments takes, read a second time from the contract: slow, obvious, and sharing no code.

The standard library's parser in place of pydantic's, scanning in place of regular expressions, and nothing
imported from the gateway: where the two differ, one of them is wrong.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Final

from iso4217 import Currency

TEXTS: Final = {"payment_method": 255, "customer_id": 64, "description": 500, "return_url": 2048}
FIELDS: Final = (*TEXTS, "amount", "currency", "capture", "psp", "metadata", "payment_checkout_id")
REQUIRED: Final = ("amount", "currency", "payment_method")
HEADER: Final = "X-PAYMENT-CHECKOUT-ID"
_CURRENCIES: Final = {currency.code for currency in Currency if currency.exponent is not None}
# Deeper than this, or beyond what a double holds, and a parser may call it no JSON: refused either way.
_DEPTH_SURE: Final = 100
_DIGITS_SURE: Final = 300


@dataclass(frozen=True)
class Verdict:
    """`wrong`: known fields and the header; `strangers`: fields that no payment has. All empty: taken."""

    wrong: frozenset[str]
    strangers: frozenset[str]
    is_object: bool
    values: dict[str, Any]

    @property
    def is_taken(self) -> bool:
        return self.is_object and not self.wrong and not self.strangers


class Pairs(list[tuple[str, Any]]):
    """An object with its order and its duplicates."""


def judge(body: bytes, checkout_id: str, psps: frozenset[str]) -> Verdict:
    wrong = set()
    if not re.fullmatch("[A-Za-z0-9_-]{8,64}", checkout_id) or holds_card(checkout_id):
        wrong.add(HEADER)
    parsed = _parsed(body)
    if not isinstance(parsed, Pairs):
        return Verdict(frozenset(wrong), frozenset(), is_object=False, values={})
    names = [name for name, _ in parsed]
    values = dict(parsed)
    wrong |= {name for name in FIELDS if names.count(name) > 1}
    wrong |= {name for name in REQUIRED if values.get(name) is None}
    for name in FIELDS:
        if values.get(name) is not None and not _is_right(name, values[name], checkout_id, psps):
            wrong.add(name)
    wrong |= {name for name, value in parsed if name in FIELDS and _is_tainted(value)}
    return Verdict(frozenset(wrong), frozenset(names) - set(FIELDS), is_object=True, values=values)


def is_sure(body: bytes) -> bool:
    """Whether every parser reads the same out of it, or the same nothing."""
    huge = re.search(rb"[0-9]{%d}|[0-9][eE][+-]?[0-9]{3}" % _DIGITS_SURE, body)
    return huge is None and body.count(b"[") + body.count(b"{") < _DEPTH_SURE


def content(values: dict[str, Any]) -> dict[str, Any]:
    """null = absent, `capture` filled in, an absent psp left absent, payment_checkout_id left out."""
    asked: dict[str, Any] = {"capture": "automatic"}
    for name, value in values.items():
        if value is not None and name != "payment_checkout_id":
            asked[name] = dict(value) if name == "metadata" else value
    return asked


def fingerprint(values: dict[str, Any]) -> bytes:
    """SHA-256 of the content, sorted."""
    text = json.dumps(content(values), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()


def holds_card(text: str) -> bool:
    """Every place where a number could begin, every way to write one."""
    for start, character in enumerate(text):
        if character in "0123456789" and not (start and text[start - 1].isalnum()):
            for groups in _GROUPINGS:
                digits = _read(text, start, groups)
                if digits and _brand_issues(digits) and _luhn(digits):
                    return True
    return False


_GROUPINGS: Final = [*((length,) for length in range(13, 20)), (4, 4, 4, 4), (4, 6, 4), (4, 6, 5)]


def _read(text: str, at: int, groups: tuple[int, ...]) -> str:
    """The digits that stand at `at` in exactly these groups, or nothing."""
    digits = ""
    for index, length in enumerate(groups):
        if index:
            if text[at : at + 1] not in (" ", "-"):
                return ""
            at += 1
        group = text[at : at + length]
        if len(group) != length or any(character not in "0123456789" for character in group):
            return ""
        digits += group
        at += length
    return "" if text[at : at + 1].isalnum() else digits


def _brand_issues(digits: str) -> bool:
    length, two, three, four, six = len(digits), *(int(digits[:n]) for n in (2, 3, 4, 6))
    long = 16 <= length <= 19
    return (
        (digits[0] == "4" and length in (13, 16, 19))
        or ((51 <= two <= 55 or 2221 <= four <= 2720) and length == 16)
        or (two in (34, 37) and length == 15)
        or ((four == 6011 or 644 <= three <= 649 or two == 65 or 622126 <= six <= 622925) and long)
        or ((300 <= three <= 305 or four == 3095 or two in (36, 38, 39)) and length in (14, 16, 19))
        or (3528 <= four <= 3589 and long)
        or (two == 62 and long)
        or four in (5018, 5020, 5038, 5893, 6304, 6759, 6761, 6762, 6763)
        or six in (676770, 676774)
    )


def _luhn(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value if value < 10 else value - 9
    return total % 10 == 0


def _parsed(body: bytes) -> Any:
    """Whatever JSON it is, or None for none at all. NaN is none, and a lone surrogate no Unicode."""

    try:
        text = body.decode("utf-8")
        parsed = json.loads(text, object_pairs_hook=Pairs, parse_constant=_no_constant, parse_int=_integer)
        "".join(_strings(parsed)).encode("utf-8")
    except (ValueError, RecursionError):
        return None
    return parsed


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _integer(digits: str) -> int:
    return int(digits) if len(digits) < _DIGITS_SURE else 10**_DIGITS_SURE


def _strings(value: Any) -> list[str]:
    """Every string that stands anywhere in it, keys included."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Pairs):
        return [text for name, item in value for text in (name, *_strings(item))]
    if isinstance(value, list):
        return [text for item in value for text in _strings(item)]
    return []


def _keys(value: Any) -> list[str]:
    if isinstance(value, Pairs):
        return [key for name, item in value for key in (name, *_keys(item))]
    return [key for item in value for key in _keys(item)] if isinstance(value, list) else []


def _is_tainted(value: Any) -> bool:
    """NUL, card numbers, keys for card data and keys that come twice, at any depth below a field."""
    if any("\0" in text or holds_card(text) for text in _strings(value)):
        return True
    return any(key.lower() in ("cvv", "cvc", "pan") for key in _keys(value)) or _repeats(value)


def _repeats(value: Any) -> bool:
    if isinstance(value, Pairs):
        names = [name for name, _ in value]
        return len(set(names)) < len(names) or any(_repeats(item) for _, item in value)
    return any(map(_repeats, value)) if isinstance(value, list) else False


def _is_right(name: str, value: Any, checkout_id: str, psps: frozenset[str]) -> bool:
    if name == "amount":
        return type(value) is int and 1 <= value <= 99_999_999_999
    if name == "metadata":
        return isinstance(value, Pairs) and len(value) <= 20 and all(_is_pair(*pair) for pair in value)
    if type(value) is not str:
        return False
    if name in TEXTS:
        return len(value) <= TEXTS[name] and (name != "payment_method" or value != "")
    allowed = {
        "currency": _CURRENCIES,
        "capture": {"automatic", "manual"},
        "psp": psps,
        "payment_checkout_id": {checkout_id},
    }
    return value in allowed[name]


def _is_pair(key: str, value: Any) -> bool:
    return len(key) <= 40 and type(value) is str and len(value) <= 500
