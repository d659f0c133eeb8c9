"""The secret with which a browser reads one payment: `merchant-MAC`, derived, never stored."""

from __future__ import annotations

import base64
import hmac
from hashlib import sha256
from typing import Final

from tollgate.ids import MERCHANT, payment_key

_BLOCK_BYTES: Final = 64  # SHA-256's


class ClientSecrets:
    """HMAC-SHA-256 of (merchant, checkout id) under one signing key, in `[A-Za-z0-9_-]+`.

    Both halves of the HMAC (RFC 2104, 4: an implementation may keep them) are begun once and copied for each
    message, which halves its cost.
    """

    def __init__(self, signing_key: bytes) -> None:
        key = sha256(signing_key).digest() if len(signing_key) > _BLOCK_BYTES else signing_key
        padded = key.ljust(_BLOCK_BYTES, b"\0")
        self._inner = sha256(bytes(byte ^ 0x36 for byte in padded))
        self._outer = sha256(bytes(byte ^ 0x5C for byte in padded))

    def secret(self, merchant: str, checkout_id: str) -> str:
        """A merchant never contains a dash, so the first dash ends it."""
        return f"{merchant}-{self._mac(merchant, checkout_id)}"

    def merchant(self, secret: str, checkout_id: str) -> str | None:
        """The merchant whose payment `secret` opens, or None. Constant time in the MAC."""
        merchant, _, mac = secret.partition("-")
        if not MERCHANT.fullmatch(merchant) or not mac.isascii():
            return None
        return merchant if hmac.compare_digest(mac, self._mac(merchant, checkout_id)) else None

    def _mac(self, merchant: str, checkout_id: str) -> str:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(payment_key(merchant, checkout_id).encode())
        outer.update(inner.digest())
        return base64.urlsafe_b64encode(outer.digest()).rstrip(b"=").decode()
