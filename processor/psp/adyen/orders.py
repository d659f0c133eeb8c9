"""What Adyen is asked for: each step's body. Pure.

Every request has our key as its `reference`: it is unique, it fits Adyen's 80 characters, and notifications
name it, signed, so that what a lost answer was about can be found. A payment's says besides how it is
captured, which no notification tells. `merchantOrderReference` and `metadata` are for people at Adyen.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from processor.psp.adyen.money import adyens_value
from processor.psp.interface import Order
from tollgate.ids import PAYMENT_OPERATION, payment_key, psp_idempotency_key
from tollgate.v1.payment_pb2 import Capture, Payment

PAY: Final = "pay"
CAPTURE: Final = "capture"
CANCEL: Final = "cancel"
REFUND: Final = "refund"
_HOW: Final = {Capture.CAPTURE_AUTOMATIC: "auto", Capture.CAPTURE_MANUAL: "manual"}


def order_body(order: Order, step: str, merchant_account: str, return_url: str, key: str) -> bytes:
    """An amount that Adyen can't express is null; it is never sent, see `is_expressible`."""
    reference = _payment_reference(order.payment, key) if step == PAY else key
    content: dict[str, Any] = {"merchantAccount": merchant_account, "reference": reference}
    if step != CANCEL:
        currency = order.payment.currency
        content["amount"] = {"currency": currency, "value": adyens_value(order.amount, currency)}
    elif not order.reference:
        ids = order.payment.merchant, order.payment.checkout_id, PAYMENT_OPERATION
        content["paymentReference"] = _payment_reference(order.payment, psp_idempotency_key(*ids, PAY))
    if step == PAY:
        content |= _payment(order, return_url)
    return orjson.dumps(content)


def is_expressible(sent: dict[str, Any]) -> bool:
    """Whether its amount, if it has one, is an amount at Adyen."""
    return "amount" not in sent or sent["amount"]["value"] is not None


def read_reference(reference: str) -> tuple[str, str]:
    """The key in a `reference`, and how a payment is captured: auto or manual; empty for a modification."""
    key, _, how = reference.partition("-")
    return key, how


def _payment_reference(payment: Payment, key: str) -> str:
    return f"{key}-{_HOW.get(payment.capture, 'auto')}"


def _payment(order: Order, return_url: str) -> dict[str, Any]:
    """A stored card of a known payer. 3-D Secure is by redirect alone: nobody here runs Adyen's script."""
    payment = order.payment
    content: dict[str, Any] = {
        "merchantOrderReference": payment_key(payment.merchant, payment.checkout_id),
        "metadata": {"merchant": payment.merchant, "checkout_id": payment.checkout_id},
        "paymentMethod": {"type": "scheme", "storedPaymentMethodId": payment.payment_method},
        "shopperInteraction": "ContAuth",
        "recurringProcessingModel": "CardOnFile",
        "authenticationData": {"threeDSRequestData": {"nativeThreeDS": "disabled"}},
        "channel": "Web",
        "returnUrl": payment.return_url or return_url,
    }
    if payment.customer_id:
        content["shopperReference"] = payment.customer_id
    # The account's own setting decides unless it is told otherwise for each payment.
    if payment.capture == Capture.CAPTURE_MANUAL:
        content["additionalData"] = {"manualCapture": "true"}
    else:
        content["captureDelayHours"] = 0
    return content
