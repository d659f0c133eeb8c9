"""What Adyen's notification items say. Pure. They come as `tollgate/webhooks/adyen.py` keeps them: verified,
one by one, without what isn't signed.

`merchantReference` is our key of a request: the modification's own, or, as Adyen documents for some, that of
the payment it is about. Of which operation it is, is then found by kind and by Adyen's reference.
https://docs.adyen.com/development-resources/webhooks/webhook-types/
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from processor.psp.adyen.money import amount_in
from processor.psp.adyen.orders import read_reference
from processor.psp.adyen.refusals import refusal_code
from processor.psp.interface import Approved, Declined, Done, OperationKind
from processor.psp.webhook import Irrelevant, Reading, Report, Subject, Unreadable

# What a modification's item is about, and whether its success is the failure of what was done before.
_MODIFICATION: Final[dict[str, tuple[OperationKind, bool]]] = {
    "CAPTURE": (OperationKind.CAPTURE, False),
    "CAPTURE_FAILED": (OperationKind.CAPTURE, True),
    "CANCELLATION": (OperationKind.CANCEL, False),
    "TECHNICAL_CANCEL": (OperationKind.CANCEL, False),
    "EXPIRE": (OperationKind.CANCEL, False),
    "REFUND": (OperationKind.REFUND, False),
    "REFUND_FAILED": (OperationKind.REFUND, True),
    "REFUNDED_REVERSED": (OperationKind.REFUND, True),
}
# What Adyen says of a payment whose payer never came: for cards twelve hours after it was made.
_NEVER_PAID: Final = ("action_expired", "The payer did not complete the payment in time.")
_BY_HAND: Final = frozenset({"CANCEL_OR_REFUND", "REFUND_WITH_DATA", "VOID_PENDING_REFUND"})


def read_adyen_notification(body: bytes) -> Reading:
    try:
        item = orjson.loads(body)
        code, succeeded = _text(item["eventCode"]), _text(item["success"]) == "true"
        if code == "AUTHORISATION":
            return _authorization(item, succeeded)
        if code == "OFFER_CLOSED" and succeeded:
            return _never_paid(item)
        if code in _MODIFICATION:
            return _modification(item, succeeded, *_MODIFICATION[code])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return Unreadable("the item is not as Adyen documents it")
    if code in _BY_HAND and succeeded:
        return Unreadable("money was moved at Adyen in a way that Tollgate never asks for")
    return Irrelevant("an event that decides nothing here")


def _authorization(item: dict[str, Any], succeeded: bool) -> Reading:
    key, how = read_reference(_text(item["merchantReference"]))
    reference = _text(item["pspReference"])
    if not succeeded:
        declined = _declined(item, "psp_refused", reference)
        return Report(Subject(request_key=key), OperationKind.PAYMENT, declined)
    approved = Approved(reference, *_amount(item), captured=how == "auto")
    return Report(Subject(request_key=key), OperationKind.PAYMENT, approved)


def _never_paid(item: dict[str, Any]) -> Reading:
    key, _how = read_reference(_text(item["merchantReference"]))
    declined = Declined(*_NEVER_PAID, _text(item["pspReference"]))
    return Report(Subject(request_key=key), OperationKind.PAYMENT, declined)


def _modification(item: dict[str, Any], succeeded: bool, kind: OperationKind, reverts: bool) -> Reading:
    key, how = read_reference(_text(item["merchantReference"]))
    subject, reference = Subject(request_key=key), _text(item["pspReference"])
    if reverts and not succeeded:
        return Irrelevant("a failure that did not happen")
    if item["eventCode"] == "CAPTURE" and how == "auto" and succeeded:
        return Irrelevant("the automatic capture of a payment, which was told of as captured")
    if reverts or not succeeded:
        return Report(subject, kind, _declined(item, f"{kind}_failed", reference))
    return Report(subject, kind, Done(reference, *_amount(item)))


def _declined(item: dict[str, Any], otherwise: str, reference: str) -> Declined:
    reason = _text(item["reason"])
    return Declined(refusal_code(reason, otherwise), reason or "The PSP gave no reason.", reference)


def _amount(item: dict[str, Any]) -> tuple[int, str]:
    amount = amount_in(item["amount"])
    if amount is None:
        raise TypeError("not an amount")
    return amount


def _text(value: Any) -> str:
    """What Postgres can't store is nothing that Adyen writes."""
    if not isinstance(value, str) or "\0" in value:
        raise TypeError("not a text")
    return value
