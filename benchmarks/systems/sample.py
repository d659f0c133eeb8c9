"""The answer that systems without payments give: as long as a shard's answer to the generator's payment."""

from __future__ import annotations

from typing import Final

import orjson

from benchmarks.measure.generator import PAYMENT

_SENT: Final = orjson.loads(PAYMENT.read_bytes())
_AT: Final = "2026-11-21T10:00:00.000001Z"

ANSWER: Final = orjson.dumps(
    {
        "payment_checkout_id": "00000000-0000-0000-0000-000000000000",
        "status": "pending",
        "amount": _SENT["amount"],
        "currency": _SENT["currency"],
        "captured_amount": 0,
        "refunded_amount": 0,
        "capture": "automatic",
        "version": 0,
        "psp": "simulator",
        "psp_reference": None,
        "risk_score": None,
        "failure": None,
        "next_action": None,
        "customer_id": _SENT["customer_id"],
        "description": None,
        "metadata": _SENT["metadata"],
        "operations": [],
        "created_at": _AT,
        "updated_at": _AT,
        "client_secret": "demo-" + "A" * 43,
    }
)
