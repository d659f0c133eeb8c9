"""The names things go by: payment keys, merchants, PSP idempotency keys, API-key hashes, client secrets."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets

CHECKOUT_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
MERCHANT = re.compile(r"[a-z0-9_]{1,32}")

# The operation that executes the payment itself; every other operation's id is the Ledger's.
PAYMENT_OPERATION = "payment"


def payment_key(merchant: str, checkout_id: str) -> str:
    """`merchant/checkout id`: the shard's storage key and Kafka's. A merchant never contains a slash."""
    return f"{merchant}/{checkout_id}"


def split_payment_key(key: str) -> tuple[str, str]:
    """The inverse of `payment_key`. Raises ValueError on a key without a slash."""
    merchant, slash, checkout_id = key.partition("/")
    if not slash:
        raise ValueError("a payment key is merchant/checkout id")
    return merchant, checkout_id


def psp_idempotency_key(merchant: str, checkout_id: str, operation_id: str, step: str) -> str:
    """Hex SHA-256 over (merchant, checkout id, operation id, step): the same for every send, for ever.

    64 characters, which is Adyen's longest. NUL separates the parts; none of them can contain one.
    """
    joined = "\0".join((merchant, checkout_id, operation_id, step))
    return hashlib.sha256(joined.encode()).hexdigest()


def api_key_hash(api_key: str) -> bytes:
    """SHA-256 of a secret key (32 bytes). Keys are long and random, so no salt and no stretching."""
    return hashlib.sha256(api_key.encode()).digest()


def new_api_key() -> str:
    return "tg_sk_" + secrets.token_urlsafe(32)


def client_secret(signing_key: bytes, merchant: str, checkout_id: str) -> str:
    """`merchant-HMAC`: lets a browser read one payment. Derived, never stored; `[A-Za-z0-9_-]+`.

    A merchant never contains a dash, so the first dash ends it.
    """
    return f"{merchant}-{_client_mac(signing_key, merchant, checkout_id)}"


def verify_client_secret(signing_key: bytes, secret: str, checkout_id: str) -> str | None:
    """The merchant whose payment `secret` opens, or None. Constant time in the MAC."""
    merchant, _, mac = secret.partition("-")
    if not MERCHANT.fullmatch(merchant) or not mac.isascii():
        return None
    expected = _client_mac(signing_key, merchant, checkout_id)
    return merchant if hmac.compare_digest(mac, expected) else None


def _client_mac(signing_key: bytes, merchant: str, checkout_id: str) -> str:
    mac = hmac.digest(signing_key, payment_key(merchant, checkout_id).encode(), "sha256")
    return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
