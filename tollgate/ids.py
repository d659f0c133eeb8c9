"""The names things go by: payment keys, merchants, PSP idempotency keys, API-key hashes."""

from __future__ import annotations

import hashlib
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
