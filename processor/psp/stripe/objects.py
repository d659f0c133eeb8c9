"""As much of Stripe's objects as is read, strictly. What doesn't fit is no answer, and so Unknown.

Shapes: https://docs.stripe.com/api/payment_intents/object, /refunds/object and /errors, of the API version
that the library pins.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

TEXT_MAX: Final = 500  # of what a refusal says, as it is kept
# What Stripe asks not to be told to a payer, who may be the thief: https://docs.stripe.com/declines/codes
_NOT_TOLD: Final = frozenset({"fraudulent", "lost_card", "stolen_card", "merchant_blacklist"})


class _Read(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class Failure(_Read):
    """An `error`, or a PaymentIntent's `last_payment_error`."""

    type: str | None = None
    code: str | None = None
    decline_code: str | None = None
    message: str | None = None
    payment_intent: dict[str, Any] | None = None

    @property
    def told_code(self) -> str:
        """The issuer's reason where there is one, as `insufficient_funds`."""
        reason = "generic_decline" if self.decline_code in _NOT_TOLD else self.decline_code
        return _bounded(reason or self.code or self.type or "declined")

    @property
    def told_message(self) -> str:
        return _bounded(self.message or "Stripe gave no reason.")


class _RedirectToUrl(_Read):
    url: Annotated[str, Field(min_length=1, max_length=8192)]


class _NextAction(_Read):
    redirect_to_url: _RedirectToUrl | None = None


Currency = Annotated[str, Field(pattern=r"^[a-z]{3}$")]


class PaymentIntent(_Read):
    object: Literal["payment_intent"]
    id: Annotated[str, Field(pattern=r"^pi_[A-Za-z0-9_]{1,250}$")]
    livemode: bool
    status: str
    amount: int
    amount_capturable: int
    amount_received: int
    capture_method: str
    currency: Currency
    metadata: dict[str, str]
    next_action: _NextAction | None = None
    last_payment_error: Failure | None = None

    @property
    def action_url(self) -> str:
        redirect = self.next_action and self.next_action.redirect_to_url
        return redirect.url if redirect else ""


class Refund(_Read):
    object: Literal["refund"]
    id: Annotated[str, Field(pattern=r"^[a-z]{2,8}_[A-Za-z0-9_]{1,250}$")]
    status: str | None
    amount: int
    currency: Currency
    payment_intent: str | None
    metadata: dict[str, str]
    failure_reason: str | None = None


ReadT = TypeVar("ReadT", bound=BaseModel)


def read(kind: type[ReadT], document: object) -> ReadT | None:
    """None: not what Stripe documents."""
    try:
        return kind.model_validate(document)
    except ValidationError:
        return None


def _bounded(text: str) -> str:
    """Without the one character that Postgres can't store."""
    return text.replace("\0", "")[:TEXT_MAX]
