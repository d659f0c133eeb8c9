"""What Stripe's answers come to. Pure.

What stands is read from the PaymentIntent's own state, whoever asks: a confirmation, a capture or a cancel
has its effect once in its life, whether or not Stripe still knows the key. A capture and a refund are told
from others by our key in their metadata. Anything that isn't exactly as documented is Unknown.
"""

from __future__ import annotations

from typing import Any, Final

import stripe

from processor.psp.interface import (
    Advanced,
    Awaited,
    Declined,
    Outcome,
    Retryable,
    Unknown,
)
from processor.psp.stripe.objects import Failure, PaymentIntent, ReadT, Refund, read
from processor.psp.stripe.requests import (
    CAPTURE,
    CAPTURE_KEY_NAME,
    CONFIRM,
    CREATE,
    KEY_NAME,
    REFUND,
    Sent,
)
from processor.psp.stripe.standing import done, standing

REFUSED_KEY_S: Final = 60.0  # how long a person may take to correct a key, fifty times over
INVALID: Final = "invalid_transition"
_ABOUT_ANOTHER: Final = "Stripe's answer is not about what was sent"


def of_answer(sent: Sent, document: object, live: bool) -> Outcome:
    """A 2xx."""
    if sent.step == REFUND:
        refund = read(Refund, document)
        return _of_refund(sent, refund) if refund else Unknown("Stripe's answer is no refund")
    intent = read(PaymentIntent, document)
    if intent is None or intent.livemode != live:
        return Unknown("Stripe's answer is no PaymentIntent of this mode")
    return _of_intent(sent, intent) or Unknown(f"the PaymentIntent is still {intent.status}", intent.id)


def of_refusal(sent: Sent, error: stripe.StripeError, live: bool) -> Outcome:
    """Anything but a 2xx. What Stripe documents as not executed is Retryable, what it refused is Declined."""
    match error:
        case stripe.StripeError(http_status=429):
            return Retryable("Stripe answered 429", _seconds(error))
        case stripe.AuthenticationError() | stripe.PermissionError():
            told = f"Stripe refuses the API key ({error.http_status}). Operator action: correct it."
            return Retryable(told, REFUSED_KEY_S)
        case stripe.CardError() | stripe.InvalidRequestError():
            return _of_final_refusal(sent, error, live)
        case _:
            return Unknown(f"Stripe answered {error.http_status}")


def of_look_up(sent: Sent, document: dict[str, Any], live: bool) -> Outcome:
    """A list, or the PaymentIntent. What isn't in it was never executed."""
    if sent.step == CREATE:
        return _found_intent(sent, document, live)
    if sent.step == REFUND:
        return _found_refund(sent, document)
    intent = read(PaymentIntent, document)
    if intent is None or intent.livemode != live:
        return Unknown("Stripe's answer is no PaymentIntent of this mode")
    return _of_intent(sent, intent) or Retryable(f"it never was: the PaymentIntent is {intent.status}")


def of_standing(reference: str, document: object, live: bool) -> Outcome:
    """How a payment stands."""
    intent = read(PaymentIntent, document)
    if intent is None or intent.id != reference or intent.livemode != live:
        return Unknown(_ABOUT_ANOTHER, reference)
    return standing(intent)


def _of_intent(sent: Sent, intent: PaymentIntent) -> Outcome | None:
    """None: nothing of what was sent stands."""
    if sent.step == CREATE:
        return _created(sent, intent)
    if intent.id != sent.intent:
        return Unknown(_ABOUT_ANOTHER)
    if sent.step == CONFIRM:
        return None if intent.status == "requires_confirmation" else standing(intent)
    return _captured(sent, intent) if sent.step == CAPTURE else _canceled(intent)


def _created(sent: Sent, intent: PaymentIntent) -> Outcome:
    ours = intent.metadata.get(KEY_NAME) == sent.key
    if not ours or (str(intent.amount), intent.currency) != (sent.form["amount"], sent.form["currency"]):
        return Unknown(_ABOUT_ANOTHER, intent.id)
    return Advanced(intent.id)


def _captured(sent: Sent, intent: PaymentIntent) -> Outcome | None:
    match intent.status:
        case "requires_capture":
            return None
        case "succeeded" if intent.metadata.get(CAPTURE_KEY_NAME) == sent.key:
            return done(intent.id, intent.amount_received, intent.currency)
        case "succeeded":
            return Declined(INVALID, "The payment was captured by another request.")
        case "canceled":
            return Declined(INVALID, "The authorization was canceled or expired at Stripe.")
        case status:
            return Unknown(f"the PaymentIntent is {status}")


def _canceled(intent: PaymentIntent) -> Outcome | None:
    match intent.status:
        case "canceled":
            return done(intent.id, intent.amount, intent.currency)
        case "succeeded":
            return Declined(INVALID, "The payment was captured already.")
        case "processing":
            return Unknown("the PaymentIntent is processing")
        case _:
            return None


def _of_refund(sent: Sent, refund: Refund) -> Outcome:
    told = (refund.metadata.get(KEY_NAME), refund.payment_intent, str(refund.amount))
    if told != (sent.key, sent.intent, sent.form["amount"]):
        return Unknown(_ABOUT_ANOTHER, refund.id)
    match refund.status:
        case "succeeded":
            return done(refund.id, refund.amount, refund.currency)
        case "failed" | "canceled" as status:
            return Declined(refund.failure_reason or f"refund_{status}", f"The refund {status} at Stripe.")
        case (
            "pending"
        ):  # on its way to the card's bank; an event tells, or the look-up after the patience is over
            return Awaited(refund.id)
        case status:
            return Unknown(f"the refund is {status}", refund.id)


def _found_intent(sent: Sent, page: dict[str, Any], live: bool) -> Outcome:
    """Nothing stands in any case, as what was created moves no money. What the list doesn't hold, for it ends
    somewhere, Stripe still knows by the key: a send of the same bytes makes no second one.
    """
    listed = _listed(PaymentIntent, page)
    if listed is None:
        return Unknown("Stripe's answer is no list")
    for intent in listed:
        if intent and intent.metadata.get(KEY_NAME) == sent.key and intent.livemode == live:
            return _created(sent, intent)
    return Retryable("Stripe's newest PaymentIntents hold no such one")


def _found_refund(sent: Sent, page: dict[str, Any]) -> Outcome:
    listed = _listed(Refund, page)
    for refund in listed or ():
        if refund and refund.metadata.get(KEY_NAME) == sent.key:
            return _of_refund(sent, refund)
    if listed is None or None in listed or page.get("has_more") is not False:
        return Unknown("Stripe's list of the payment's refunds can't be read to its end")
    return Retryable("Stripe's list of the payment's refunds holds no such one")


def _listed(kind: type[ReadT], page: dict[str, Any]) -> list[ReadT | None] | None:
    """None for what can't be read."""
    data = page.get("data")
    if page.get("object") != "list" or not isinstance(data, list):
        return None
    return [read(kind, item) for item in data]


def _of_final_refusal(sent: Sent, error: stripe.StripeError, live: bool) -> Outcome:
    """Of a PaymentIntent that exists, its state decides: an earlier send may be why this one is refused."""
    body = error.json_body
    told = read(Failure, body.get("error") if isinstance(body, dict) else None)
    if told is None or not told.type:
        return Unknown(f"Stripe answered {error.http_status} without a reason", sent.intent)
    intent = read(PaymentIntent, told.payment_intent)
    if sent.intent and sent.step != REFUND and intent and intent.livemode == live:
        outcome = _of_intent(sent, intent)
        return Declined(told.told_code, told.told_message, intent.id) if outcome is None else outcome
    if sent.step in (CREATE, REFUND) or isinstance(error, stripe.CardError):
        reference = "" if sent.step == REFUND else sent.intent
        return Declined(told.told_code, told.told_message, reference)
    return Unknown(f"Stripe answered {error.http_status} {told.told_code}", sent.intent)


def _seconds(error: stripe.StripeError) -> float | None:
    text = (error.headers or {}).get("Retry-After")
    return float(text) if text and text.isascii() and text.isdigit() else None
