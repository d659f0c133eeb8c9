"""How a payment stands by its PaymentIntent, as an answer or an event shows it. Pure."""

from __future__ import annotations

from processor.psp.interface import ActionRequired, Approved, Declined, Done, Unknown
from processor.psp.stripe.amounts import from_stripe
from processor.psp.stripe.objects import PaymentIntent


def standing(intent: PaymentIntent) -> Approved | ActionRequired | Declined | Unknown:
    currency = intent.currency.upper()
    match intent.status:
        case "succeeded" | "requires_capture" as status:
            captured = status == "succeeded"
            told = intent.amount_received if captured else intent.amount_capturable
            amount = from_stripe(told, currency)
            if amount is None:
                return Unknown("Stripe's amount is none of this currency", intent.id)
            return Approved(intent.id, amount, currency, captured=captured)
        case "requires_action" if intent.action_url:
            return ActionRequired(intent.id, intent.action_url)
        case "requires_payment_method" if error := intent.last_payment_error:
            return Declined(error.told_code, error.told_message, intent.id)
        case "canceled":
            return Declined("canceled", "The payment was canceled at Stripe.", intent.id)
        case status:
            return Unknown(f"the PaymentIntent is {status}", intent.id)


def done(reference: str, amount: int, currency: str) -> Done | Unknown:
    minor = from_stripe(amount, currency.upper())
    if minor is None:
        return Unknown("Stripe's amount is none of this currency", reference)
    return Done(reference, minor, currency.upper())
