"""Whose word a webhook is: what every PSP's verifier promises, and the verifiers by the PSP's name.

Pure: bytes, headers, secrets and the time are handed in, so that a gateway verifies with all else down. What
an event means is the processor's business (`processor/psp/webhook.py`), which verifies nothing: what is in
the change log was proven before it was stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from tollgate.webhooks.adyen import AdyenWebhooks
from tollgate.webhooks.interface import WebhookVerifier
from tollgate.webhooks.simulator import SimulatorWebhooks
from tollgate.webhooks.stripe import StripeWebhooks

# A PSP joins by one entry: how its verifier is made of the secrets that are valid now, any of which may sign.
VERIFIERS: Final[Mapping[str, Callable[[Sequence[str]], WebhookVerifier]]] = {
    "adyen": AdyenWebhooks,
    "simulator": SimulatorWebhooks,
    "stripe": StripeWebhooks,
}
