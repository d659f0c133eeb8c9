"""From what the witnesses hold to the one form in which they are compared. Pure."""

from __future__ import annotations

from typing import Any, Final

from tollgate.cli.proof.testimony import State
from tollgate.client_log import parsed_us
from tollgate.status import NAME
from tollgate.v1.payment_pb2 import Capture, Payment

_CAPTURE: Final = {Capture.CAPTURE_AUTOMATIC: "automatic", Capture.CAPTURE_MANUAL: "manual"}


def state_of_payment(payment: Payment, at_us: int = 0) -> State:
    """`at_us`: when, if not when it was last changed."""
    return State(
        NAME.get(payment.status, "unspecified"),
        payment.version,
        payment.amount,
        payment.currency,
        payment.captured_amount,
        payment.refunded_amount,
        _CAPTURE.get(payment.capture, "unspecified"),
        payment.payment_method,
        payment.fingerprint,
        at_us or payment.updated_at_us or payment.created_at_us,
    )


def state_of_document(document: dict[str, Any]) -> State:
    """Of the JSON that events hold. Raises KeyError or ValueError when it is none."""
    return State(
        document["status"],
        document["version"],
        document["amount"],
        document["currency"],
        document["captured_amount"],
        document["refunded_amount"],
        document["capture"],
        "",
        b"",
        parsed_us(document["updated_at"]),
    )
