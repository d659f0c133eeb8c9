"""Adyen's refusal reasons as codes that a client can read.

Adyen names a reason by the same words in its answers (`refusalReason`) and in its notifications (`reason`).
https://docs.adyen.com/development-resources/refusal-reasons/
"""

from __future__ import annotations

import re
from typing import Final

_CODE_MAX: Final = 64
_NOT_OF_A_CODE: Final = re.compile(r"[^a-z0-9]+")

# Where Adyen's own words would say less, or another PSP says the same in others.
_CODE_OF: Final = {
    "refused": "card_declined",
    "declined_non_generic": "card_declined",
    "not_enough_balance": "insufficient_funds",
    "withdrawal_amount_exceeded": "insufficient_funds",
    "blocked_card": "card_blocked",
    "restricted_card": "card_blocked",
    "invalid_card_number": "invalid_card_number",
    "issuer_unavailable": "issuer_unavailable",
    "acquirer_error": "acquirer_error",
    "cvc_declined": "incorrect_cvc",
    "avs_declined": "incorrect_address",
    "fraud": "suspected_fraud",
    "fraud_cancelled": "suspected_fraud",
    "acquirer_fraud": "suspected_fraud",
    "issuer_suspected_fraud": "suspected_fraud",
    "3d_not_authenticated": "authentication_failed",
    "3d_secure_authentication_failed": "authentication_failed",
    "3ds_authentication_error": "authentication_failed",
    "authentication_required": "authentication_required",
    "cancelled": "canceled",
    "shopper_cancelled": "canceled_by_payer",
    "not_supported": "not_supported",
    "transaction_not_permitted": "not_permitted",
    "revocation_of_auth": "authorization_revoked",
}


def refusal_code(reason: str, otherwise: str) -> str:
    """`expired_card` for "Expired Card"; `otherwise` when there are no words."""
    words = _NOT_OF_A_CODE.sub("_", reason.lower()).strip("_")[:_CODE_MAX].rstrip("_")
    return _CODE_OF.get(words, words) or otherwise
