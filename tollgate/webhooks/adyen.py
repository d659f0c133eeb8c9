"""Adyen signs each notification item in its body: HMAC-SHA256, under a key of hex digits, over eight fields.

https://docs.adyen.com/development-resources/webhooks/secure-webhooks/verify-hmac-signatures/

A request may carry several items; it stands or falls as a whole. No time is signed, so an old item is told
from a new one by its id alone. What isn't signed goes no further, but for the words of a refusal, which
decide nothing: `additionalData` may tell of cards and people.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from typing import Any, Final

import orjson

from tollgate.errors import ConfigurationError
from tollgate.webhooks.interface import (
    Acknowledgement,
    Headers,
    Malformed,
    Unverified,
    Verified,
    WebhookEvent,
    is_event_id,
)

KEY_BYTES_MIN: Final = 16
_ITEMS_MAX: Final = 64
_REASON_MAX: Final = 500
_FOREIGN: Final = Unverified("Not every notification item has a signature by a key of ours.")
_SUCCESS: Final[dict[object, str]] = {"true": "true", "false": "false", True: "true", False: "false"}


class AdyenWebhooks:
    acknowledgement = Acknowledgement("text/plain", b"[accepted]")

    def __init__(self, secrets: Sequence[str]) -> None:
        self._keys = [_key(secret) for secret in secrets]

    def verify(self, headers: Headers, body: bytes, now_s: float) -> Verified | Unverified | Malformed:
        events = []
        for item in _items(body):
            fields = _signed_fields(item)
            if fields is None or not self._is_ours(fields, item):
                return _FOREIGN
            events.append(_event(fields, item))
        if not events:
            return Unverified("It is no notification of Adyen's.")
        if not all(is_event_id(event.event_id) for event in events):
            return Malformed("A notification item has no usable pspReference and eventCode.")
        return Verified(tuple(events))

    def _is_ours(self, fields: Sequence[str], item: dict[str, Any]) -> bool:
        more = item.get("additionalData")
        offered = more.get("hmacSignature") if isinstance(more, dict) else None
        if not isinstance(offered, str):
            return False
        return any(hmac.compare_digest(_signature(fields, key), offered.encode()) for key in self._keys)


def signed(item: dict[str, Any], secret: str) -> dict[str, Any]:
    """`item` as Adyen would send it. Raises ConfigurationError for a key that is none."""
    fields = _signed_fields(item)
    if fields is None:
        raise ValueError("no notification item has these fields")
    signature = _signature(fields, _key(secret)).decode()
    return {**item, "additionalData": {**item.get("additionalData", {}), "hmacSignature": signature}}


def _items(body: bytes) -> list[dict[str, Any]]:
    """Empty when there are none, or more than anybody sends, or one is not as it should be."""
    try:
        wrapped = orjson.loads(body)["notificationItems"]
        items = [wrap["NotificationRequestItem"] for wrap in wrapped[:_ITEMS_MAX]]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return []
    return items if len(items) == len(wrapped) and all(isinstance(item, dict) for item in items) else []


def _signed_fields(item: dict[str, Any]) -> tuple[str, ...] | None:
    """In the order in which they are signed, joined by colons. Only the merchant's own reference may contain
    one: a second would let the text of one field be read as the next one's.
    """
    amount, success = item.get("amount"), item.get("success")
    if not isinstance(amount, dict) or not isinstance(success, str | bool) or success not in _SUCCESS:
        return None
    value = amount.get("value")
    if type(value) is not int:
        return None
    texts = [
        item.get("pspReference"),
        item.get("originalReference") or "",
        item.get("merchantAccountCode"),
        item.get("merchantReference") or "",
        str(value),
        amount.get("currency"),
        item.get("eventCode"),
        _SUCCESS[success],
    ]
    fields = tuple(text for text in texts if isinstance(text, str))
    if len(fields) != len(texts) or any(":" in text for text in (*fields[:3], *fields[4:])):
        return None
    return fields


def _signature(fields: Sequence[str], key: bytes) -> bytes:
    joined = ":".join(fields).encode()
    return base64.b64encode(hmac.digest(key, joined, hashlib.sha256))


def _event(fields: Sequence[str], item: dict[str, Any]) -> WebhookEvent:
    psp_reference, original, account, reference, value, currency, code, success = fields
    reason = item.get("reason")
    kept = {
        "pspReference": psp_reference,
        "originalReference": original,
        "merchantAccountCode": account,
        "merchantReference": reference,
        "amount": {"value": int(value), "currency": currency},
        "eventCode": code,
        "success": success,
        # Of a success it holds the card's last digits and its expiry.
        "reason": reason[:_REASON_MAX] if isinstance(reason, str) and success == "false" else "",
    }
    return WebhookEvent(f"{code}:{psp_reference}:{success}", orjson.dumps(kept))


def _key(secret: str) -> bytes:
    try:
        key = bytes.fromhex(secret)
    except ValueError:
        key = b""
    if len(key) < KEY_BYTES_MIN:
        raise ConfigurationError(
            "An HMAC key of Adyen's webhooks is not the hex digits that its Customer Area shows. Correct it "
            "and start again."
        )
    return key
