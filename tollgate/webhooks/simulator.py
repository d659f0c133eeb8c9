"""The PSP simulator signs as https://www.standardwebhooks.com says: HMAC-SHA256 over id, time and body.

The headers `webhook-id`, `webhook-timestamp` and `webhook-signature` are all signed or the signature itself;
the id is the event's. The library computes the signature; its own `verify` is not used, as it asks the wall
clock.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from standardwebhooks import Webhook
from standardwebhooks.webhooks import EmptyWebhookSecretError

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

ID: Final = "webhook-id"
TIMESTAMP: Final = "webhook-timestamp"
SIGNATURE: Final = "webhook-signature"

_UNSIGNED: Final = Unverified(f"Send {ID}, {TIMESTAMP} and {SIGNATURE}, once each.")
_FOREIGN: Final = Unverified("The signature is not one over this id, time and body by a secret of ours.")
_TIME_DIGITS_MAX: Final = 11


class SimulatorWebhooks:
    acknowledgement = Acknowledgement("application/json", b'{"received":true}')

    def __init__(self, secrets: Sequence[str]) -> None:
        self._signers = [_signer(secret) for secret in secrets]

    def verify(self, headers: Headers, body: bytes, now_s: float) -> Verified | Unverified | Malformed:
        event_id, sent_at, signatures = (headers.get(name) for name in (ID, TIMESTAMP, SIGNATURE))
        if not (event_id and sent_at and signatures):
            return _UNSIGNED
        if not (sent_at.isascii() and sent_at.isdigit() and len(sent_at) <= _TIME_DIGITS_MAX):
            return _UNSIGNED
        try:
            text = body.decode()
        except UnicodeDecodeError:
            return _FOREIGN  # the scheme signs text
        offered = [signature.encode() for signature in signatures.split(" ")]
        if not any(
            hmac.compare_digest(_signed(signer, event_id, int(sent_at), text), signature)
            for signer in self._signers
            for signature in offered
        ):
            return _FOREIGN
        if abs(now_s - int(sent_at)) > REPLAY_WINDOW_S:
            return Unverified(f"It was signed more than {REPLAY_WINDOW_S:g} s ago, or for later.")
        if not is_event_id(event_id):
            return Malformed("The event's id has 1-255 visible ASCII characters.")
        return Verified((WebhookEvent(event_id, body),))


def signed_headers(secret: str, event_id: str, body: bytes, now_s: float) -> dict[str, str]:
    """What a delivery of `body` carries. Raises ConfigurationError for a secret that is none."""
    moment = int(now_s)
    signature = _signed(_signer(secret), event_id, moment, body.decode())
    return {ID: event_id, TIMESTAMP: str(moment), SIGNATURE: signature.decode()}


def _signed(signer: Webhook, event_id: str, moment: int, text: str) -> bytes:
    return signer.sign(event_id, datetime.fromtimestamp(moment, UTC), text).encode()


def _signer(secret: str) -> Webhook:
    try:
        return Webhook(secret)
    except (ValueError, EmptyWebhookSecretError):
        raise ConfigurationError(
            "A webhook secret of the simulator is not `whsec_` and base64. Correct it and start again."
        ) from None
