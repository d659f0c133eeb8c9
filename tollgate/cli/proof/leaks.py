"""I8: whether something that must be nowhere stands in bytes that were stored, logged or sent.

A secret is looked for as it is; a card number by the gateway's own rule, in text. In the binary form of a
payment a number may touch a byte that looks like a letter, so there its fields are looked at one by one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from tollgate.v1.payment_pb2 import Payment

CARD_NUMBER: Final = "a card number"
_SECRET_SETTINGS: Final = ("SECRET", "API_KEY", "HMAC", "PASSWORD")
_BETWEEN: Final = "\0"  # texts of a payment: no letter or digit, and in no card number
_SECRET_BYTES_MIN: Final = 8  # a shorter one is found everywhere, and no secret


class LeakScan:
    """Knows the secrets of one installation, by the names that findings call them."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        from gateway.card_numbers import holds_card_number, looks_like_one

        self._secrets = {
            name: secret.encode() for name, secret in secrets.items() if len(secret) >= _SECRET_BYTES_MIN
        }
        self._looks_like_one: Callable[[bytes], bool] = looks_like_one
        self._holds: Callable[[str], bool] = holds_card_number

    def in_text(self, raw: bytes) -> str:
        """What stands in UTF-8 text, by its name; empty: nothing."""
        return self.of_secrets(raw) or (
            CARD_NUMBER if self._looks_like_one(raw) and self._holds(raw.decode("utf-8", "replace")) else ""
        )

    def in_payment(self, raw: bytes, payment: Payment) -> str:
        """In a record, and in the payment that it holds."""
        if found := self.of_secrets(raw):
            return found
        text = _BETWEEN.join(_texts(payment))
        return CARD_NUMBER if self._looks_like_one(text.encode()) and self._holds(text) else ""

    def of_secrets(self, raw: bytes) -> str:
        for name, secret in self._secrets.items():
            if secret in raw:
                return name
        return ""


def _texts(payment: Payment) -> Iterable[str]:
    yield payment.checkout_id
    yield payment.payment_method
    yield payment.customer_id
    yield payment.description
    yield payment.return_url
    yield payment.psp_reference
    yield payment.failure.message
    yield payment.next_action.url
    for entry in payment.metadata:
        yield entry.key
        yield entry.value


def configured_secrets(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Those that Tollgate's settings hold: `…SECRET`, `…API_KEY`, and where they are named by a file, its
    content.
    """
    found: dict[str, str] = {}
    for name, value in environment.items():
        if not name.startswith("TOLLGATE_") or not any(word in name for word in _SECRET_SETTINGS):
            continue
        if name.endswith("_FILE"):
            path = Path(value)
            value = path.read_text().strip() if path.is_file() else ""
        found[name] = value
    return found
