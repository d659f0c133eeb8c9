"""What a client asked for, as a fingerprint: computed here anew, from the rule that DESIGN §5 gives.

SHA-256 of the body: null is absent, `capture` filled in, `payment_checkout_id` left out, keys sorted, JSON
without spaces. Nothing of the gateway lies between this and what it checks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

_encode = msgspec.json.Encoder(order="sorted").encode


def content_fingerprint(request: Mapping[str, Any]) -> bytes:
    """32 bytes."""
    content = {
        name: value for name, value in request.items() if value is not None and name != "payment_checkout_id"
    }
    content.setdefault("capture", "automatic")
    return hashlib.sha256(_encode(content)).digest()
