"""What Stripe's events say. Pure. They come as `tollgate/webhooks/stripe.py` keeps them: verified, in part.

An endpoint at Stripe subscribes to `TYPES`. `charge.refunded` tells nothing that the refund's own event
doesn't. https://docs.stripe.com/api/events/types
"""

from __future__ import annotations

from typing import Final

import orjson

from processor.psp.interface import Declined, Done, OperationKind, Unknown
from processor.psp.stripe.objects import PaymentIntent, Refund, read
from processor.psp.stripe.requests import CAPTURE_KEY_NAME, KEY_NAME, PAYMENT_NAME
from processor.psp.stripe.standing import done, standing
from processor.psp.webhook import Irrelevant, Reading, Report, Subject, Unreadable

INTENT_TYPES: Final = frozenset(
    {
        "payment_intent.succeeded",
        "payment_intent.amount_capturable_updated",
        "payment_intent.requires_action",
        "payment_intent.payment_failed",
        "payment_intent.canceled",
    }
)
REFUND_TYPES: Final = frozenset(
    {"refund.created", "refund.updated", "refund.failed", "charge.refund.updated"}
)
TYPES: Final = INTENT_TYPES | REFUND_TYPES

_ODD: Final = Unreadable("the event is not as Stripe documents it")


def read_stripe_event(body: bytes) -> Reading:
    try:
        event = orjson.loads(body)
        kind, told = event["type"], event["data"]["object"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return _ODD
    if not isinstance(kind, str):
        return _ODD
    if kind in INTENT_TYPES:
        intent = read(PaymentIntent, told)
        return _of_intent(intent) if intent else _ODD
    if kind in REFUND_TYPES:
        refund = read(Refund, told)
        return _of_refund(refund) if refund else _ODD
    return Irrelevant("an event that decides nothing here")


def _of_intent(intent: PaymentIntent) -> Reading:
    """A payment's own outcome is told by the key that created it; its capture and its end by their own."""
    created, name = intent.metadata.get(KEY_NAME), intent.metadata.get(PAYMENT_NAME)
    if not created or not name:
        return Irrelevant("the PaymentIntent is not one of Tollgate's")
    if intent.status == "canceled":
        ended = done(intent.id, intent.amount, intent.currency)
        return _ODD if isinstance(ended, Unknown) else _report(name, "", OperationKind.CANCEL, ended)
    if intent.status == "succeeded" and intent.capture_method == "manual":
        captured = done(intent.id, intent.amount_received, intent.currency)
        key = intent.metadata.get(CAPTURE_KEY_NAME, "")
        return _ODD if isinstance(captured, Unknown) else _report(name, key, OperationKind.CAPTURE, captured)
    outcome = standing(intent)
    if isinstance(outcome, Unknown):
        return Irrelevant("the PaymentIntent has no outcome yet")
    return Report(Subject(request_key=created), OperationKind.PAYMENT, outcome)


def _of_refund(refund: Refund) -> Reading:
    key = refund.metadata.get(KEY_NAME)
    if not key:
        return Unreadable("money was given back at Stripe in a way that Tollgate never asked for")
    match refund.status:
        case "succeeded":
            given = done(refund.id, refund.amount, refund.currency)
            return _ODD if isinstance(given, Unknown) else _report("", key, OperationKind.REFUND, given)
        case "failed" | "canceled" as status:
            refused = Declined(refund.failure_reason or f"refund_{status}", f"The refund {status} at Stripe.")
            return Report(Subject(request_key=key), OperationKind.REFUND, refused)
        case _:
            return Irrelevant("the refund has no outcome yet")


def _report(name: str, key: str, kind: OperationKind, outcome: Done) -> Report:
    """By the request's key where Stripe has it, else by the payment: then somebody else did it."""
    subject = Subject(request_key=key) if key else Subject(payment_key=name)
    return Report(subject, kind, outcome)
