"""Stripe signs an event in a header: HMAC-SHA256, in hex, over the time and the body
(https://docs.stripe.com/webhooks#verify-manually). Several signatures come while a secret is rolled.

Of an event goes on what the processor reads: the PaymentIntent's client secret, payer and card stay out.
Stripe's library is not imported here: it would cost each shard 7 MB and 0.4 s. A test holds both to the same.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Any, Final

import orjson

from tollgate.errors import ConfigurationError
from tollgate.webhooks.interface import (
    REPLAY_WINDOW_S,
    Acknowledgement,
    Headers,
    Malformed,
    Unverified,
    Verified,
    WebhookEvent,
    is_event_id,
)

SIGNATURE: Final = "stripe-signature"
_SCHEME: Final = "v1"
_PARTS_MAX: Final = 32
_TIME_DIGITS_MAX: Final = 11

_UNSIGNED: Final = Unverified(f"Send {SIGNATURE} once, with t and v1.")
_FOREIGN: Final = Unverified("The signature is not one of this endpoint's secrets over this time and body.")
_NO_EVENT: Final = Malformed("It is no event: a JSON object with an id, a type and data.object.")

_EVENT: Final = ("id", "type", "api_version", "created", "livemode")
_OBJECT: Final = (
    "object",
    "id",
    "status",
    "livemode",
    "amount",
    "amount_capturable",
    "amount_received",
    "capture_method",
    "currency",
    "metadata",
    "payment_intent",
    "failure_reason",
)
_NESTED: Final = {
    "last_payment_error": ("type", "code", "decline_code", "message"),
    "next_action": ("type", "redirect_to_url"),
}


class StripeWebhooks:
    acknowledgement = Acknowledgement("application/json", b'{"received":true}')

    def __init__(self, secrets: Sequence[str]) -> None:
        if not all(secret.isascii() and secret.isprintable() and secret.strip() for secret in secrets):
            raise ConfigurationError(
                "A webhook secret of Stripe is none. Copy it from the endpoint's page and start again."
            )
        self._secrets = [secret.encode() for secret in secrets]

    def verify(self, headers: Headers, body: bytes, now_s: float) -> Verified | Unverified | Malformed:
        signed_at, offered = _parts(headers.get(SIGNATURE) or "")
        if not (signed_at and offered):
            return _UNSIGNED
        expected = [_signature(secret, signed_at, body) for secret in self._secrets]
        if not any(hmac.compare_digest(ours, theirs) for ours in expected for theirs in offered):
            return _FOREIGN
        if abs(now_s - int(signed_at)) > REPLAY_WINDOW_S:
            return Unverified(f"It was signed more than {REPLAY_WINDOW_S:g} s ago, or for later.")
        return _event(body)


def signed_headers(secret: str, body: bytes, now_s: float) -> dict[str, str]:
    """What a delivery of `body` carries."""
    moment = str(int(now_s))
    signature = _signature(secret.encode(), moment, body).decode()
    return {SIGNATURE: f"t={moment},{_SCHEME}={signature}"}


def _parts(header: str) -> tuple[str, list[bytes]]:
    """The time and the signatures; empty when there is none."""
    parts = [part.strip().partition("=") for part in header.split(",", _PARTS_MAX)[:_PARTS_MAX]]
    times = [value for name, _, value in parts if name == "t"]
    offered = [value.encode() for name, _, value in parts if name == _SCHEME]
    is_time = len(times) == 1 and times[0].isascii() and times[0].isdigit()
    return (times[0] if is_time and len(times[0]) <= _TIME_DIGITS_MAX else ""), offered


def _signature(secret: bytes, moment: str, body: bytes) -> bytes:
    return hmac.new(secret, moment.encode() + b"." + body, hashlib.sha256).hexdigest().encode()


def _event(body: bytes) -> Verified | Malformed:
    try:
        event = orjson.loads(body)
        event_id, told = event["id"], event["data"]["object"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return _NO_EVENT
    if not (isinstance(event_id, str) and isinstance(event.get("type"), str) and isinstance(told, dict)):
        return _NO_EVENT
    if not is_event_id(event_id):
        return Malformed("The event's id has 1-255 visible ASCII characters.")
    kept = _only(event, _EVENT) | {"data": {"object": _kept(told)}}
    return Verified((WebhookEvent(event_id, orjson.dumps(kept)),))


def _kept(told: dict[str, Any]) -> dict[str, Any]:
    nested = {
        name: _only(told[name], parts) for name, parts in _NESTED.items() if isinstance(told.get(name), dict)
    }
    return _only(told, _OBJECT) | nested


def _only(document: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: document[name] for name in names if name in document}
