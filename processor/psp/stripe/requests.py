"""What is sent to Stripe, and what a stored request says of itself. Pure.

A payment is a PaymentIntent of its own: created without effect, so that its id is stored before any money
can move, then confirmed. Our key goes along as metadata of what it makes, so that a look-up can tell whose
work it is; Stripe shows none of it to the payer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlencode

from processor.psp.interface import OperationKind, Order, PspPlan, PspRequest, PspTerms, Resolution
from processor.psp.stripe.amounts import to_stripe
from tollgate.ids import payment_key
from tollgate.v1.payment_pb2 import Capture

CREATE: Final = "create"
CONFIRM: Final = "confirm"
CAPTURE: Final = "capture"
CANCEL: Final = "cancel"
REFUND: Final = "refund"

PAYMENT_NAME: Final = "tollgate_payment"  # metadata: merchant/checkout id
KEY_NAME: Final = "tollgate_key"  # metadata: the idempotency key of the request that made the object
CAPTURE_KEY_NAME: Final = "tollgate_capture"  # metadata of a PaymentIntent: the key of its capture

INTENTS: Final = "/v1/payment_intents"
REFUNDS: Final = "/v1/refunds"
KEY_RETENTION_S: Final = 24 * 60 * 60.0  # https://docs.stripe.com/api/idempotent_requests
# Stripe holds most cards' authorizations for 7 days (some for 5); when it is over, Stripe is asked.
AUTHORIZATION_WINDOW_S: Final = 7 * 24 * 60 * 60.0

_LOOK_UP: Final = PspTerms(Resolution.LOOKUP, KEY_RETENTION_S)
PLAN: Final = PspPlan(
    steps={
        OperationKind.PAYMENT: (CREATE, CONFIRM),
        OperationKind.CAPTURE: (CAPTURE,),
        OperationKind.CANCEL: (CANCEL,),
        OperationKind.REFUND: (REFUND,),
    },
    terms=dict.fromkeys((CREATE, CONFIRM, CAPTURE, CANCEL, REFUND), _LOOK_UP),
    authorization_window_s=AUTHORIZATION_WINDOW_S,
)


@dataclass(frozen=True, slots=True)
class Sent:
    """A stored request, read again. `intent` is the PaymentIntent it is about; empty when it makes one."""

    step: str
    key: str
    intent: str
    form: dict[str, str]

    @classmethod
    def of(cls, request: PspRequest) -> Sent:
        form = dict(parse_qsl(request.body.decode(), keep_blank_values=True))
        if request.path == INTENTS:
            return cls(CREATE, request.idempotency_key, "", form)
        if request.path == REFUNDS:
            return cls(REFUND, request.idempotency_key, form["payment_intent"], form)
        intent, _, step = request.path.removeprefix(f"{INTENTS}/").partition("/")
        return cls(step, request.idempotency_key, intent, form)


def build(order: Order, step: str, idempotency_key: str, return_url: str | None) -> PspRequest:
    """`return_url` is where a payer comes back to whose payment names no address of its own."""
    made = {CREATE: INTENTS, REFUND: REFUNDS}
    path = made.get(step) or f"{INTENTS}/{order.reference}/{step}"
    form = _FORM_OF[step](order, idempotency_key, return_url)
    return PspRequest("POST", path, idempotency_key, urlencode(form).encode())


def _creation(order: Order, key: str, _return_url: str | None) -> dict[str, str]:
    payment = order.payment
    form = {
        "amount": to_stripe(order.amount, payment.currency),
        "currency": payment.currency.lower(),
        "capture_method": "manual" if payment.capture == Capture.CAPTURE_MANUAL else "automatic",
        "payment_method": payment.payment_method,
        "payment_method_types[0]": "card",
        **_names(order, key),
    }
    return form | ({"description": payment.description} if payment.description else {})


def _confirmation(order: Order, _key: str, return_url: str | None) -> dict[str, str]:
    """A payer who can't be sent anywhere can't authenticate: Stripe then declines instead of waiting."""
    back = order.payment.return_url or return_url
    return {"return_url": back} if back else {"error_on_requires_action": "true"}


def _capture(order: Order, key: str, _return_url: str | None) -> dict[str, str]:
    amount = to_stripe(order.amount, order.payment.currency)
    return {"amount_to_capture": amount, f"metadata[{CAPTURE_KEY_NAME}]": key}


def _cancel(_order: Order, _key: str, _return_url: str | None) -> dict[str, str]:
    return {}


def _refund(order: Order, key: str, _return_url: str | None) -> dict[str, str]:
    amount = to_stripe(order.amount, order.payment.currency)
    return {"payment_intent": order.reference, "amount": amount, **_names(order, key)}


def _names(order: Order, key: str) -> dict[str, str]:
    name = payment_key(order.payment.merchant, order.payment.checkout_id)
    return {f"metadata[{PAYMENT_NAME}]": name, f"metadata[{KEY_NAME}]": key}


_FORM_OF: Final[dict[str, Callable[[Order, str, str | None], dict[str, str]]]] = {
    CREATE: _creation,
    CONFIRM: _confirmation,
    CAPTURE: _capture,
    CANCEL: _cancel,
    REFUND: _refund,
}
