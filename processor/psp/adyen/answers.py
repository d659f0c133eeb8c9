"""What each answer of Adyen's comes to. Pure; anything that isn't exactly as documented is Unknown.

Documented as without effect, and final: 400 and 422, a request that could not be read or is not valid. As
without effect, come again: 429, and 401 and 403, which are this side's to set right. Of 422 there is one
that says that the same request is still on its way, and one may carry `transient-error`: both are Unknown,
like every 5xx. https://docs.adyen.com/development-resources/response-handling/ and …/api-idempotency/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from processor.psp.adyen.money import amount_in
from processor.psp.adyen.orders import read_reference
from processor.psp.adyen.refusals import refusal_code
from processor.psp.answer import document_in, seconds_in, text_in, told_in
from processor.psp.interface import (
    ActionRequired,
    Approved,
    Awaited,
    Declined,
    Outcome,
    PspRequest,
    Retryable,
    Unknown,
)

ALREADY_PROCESSED: Final = "704"  # "request already processed or in progress", under the same key
_PAYMENTS: Final = "/payments"  # how the path of a payment ends; a modification's has more
_REFERENCE: Final = re.compile(r"[A-Za-z0-9]{1,32}")
_REFUSED: Final = frozenset({"Refused", "Cancelled", "Error"})
_LATER: Final = frozenset({"Received", "Pending", "PresentToShopper"})
_ELSEWHERE: Final = "the PSP's answer is not about what was sent"


def interpret(request: PspRequest, status: int, headers: Mapping[str, str], answer: bytes) -> Outcome:
    """`headers` are asked for in any case."""
    document = document_in(answer)
    code = told_in(document, "errorCode")
    match status:
        case 200 | 201 | 202 if request.path.endswith(_PAYMENTS):
            return _payment(document_in(request.body), document)
        case 200 | 201 | 202:
            return _modification(request, document)
        case 400 | 422 if code and code != ALREADY_PROCESSED and not _is_transient(headers):
            return Declined(f"psp_refused_{code}", told_in(document, "message"), _reference(document))
        case 401 | 403 | 429:
            return Retryable(
                f"the PSP answered {status} {code}".rstrip(), seconds_in(headers.get("Retry-After"))
            )
        case _:
            return Unknown(f"the PSP answered {status} {code}".rstrip(), _reference(document))


def _is_transient(headers: Mapping[str, str]) -> bool:
    return headers.get("transient-error", "").lower() == "true"


def _payment(sent: dict[str, Any], answer: dict[str, Any]) -> Outcome:
    reference = _reference(answer)
    if text_in(answer, "merchantReference") not in ("", sent["reference"]):
        return Unknown(_ELSEWHERE, reference)
    told = amount_in(answer.get("amount", sent["amount"]))
    if told is None:
        return Unknown("the PSP's answer has no amount of ours", reference)
    match text_in(answer, "resultCode"):
        case "Authorised" | "PartiallyAuthorised" if reference:
            _key, how = read_reference(sent["reference"])
            return Approved(reference, *told, captured=how == "auto")
        case result if result in _REFUSED:
            reason = told_in(answer, "refusalReason")
            code = refusal_code(reason, otherwise=f"psp_{result.lower()}")
            return Declined(code, reason or f"The PSP answered {result}.", reference)
        case "RedirectShopper" if url := _redirect(answer.get("action")):
            return ActionRequired(reference, url)
        case result if result in _LATER and reference:
            return Awaited(reference)
        case result:
            return Unknown(f"the PSP's result is {result or 'none'}", reference)


def _redirect(action: object) -> str:
    """Where to, when a link is enough to get there."""
    if not isinstance(action, dict) or action.get("type") != "redirect":
        return ""
    return text_in(action, "url") if action.get("method", "GET") == "GET" else ""


def _modification(request: PspRequest, answer: dict[str, Any]) -> Outcome:
    """All that is told at once is that it was received."""
    sent, reference = document_in(request.body), _reference(answer)
    of = answer.get("paymentPspReference", answer.get("paymentReference"))
    about = text_in(answer, "reference") in ("", sent["reference"]) and of in (
        _payment_in(request.path) or sent.get("paymentReference"),
        None,
    )
    same = "amount" not in sent or answer.get("amount", sent["amount"]) == sent["amount"]
    if reference and about and same and answer.get("status") == "received":
        return Awaited(reference)
    return Unknown(_ELSEWHERE, reference)


def _payment_in(path: str) -> str:
    """Adyen's reference of the payment that a modification is of; empty when it goes by our own."""
    before, _, after = path.partition("/payments/")
    return after.partition("/")[0] if before != path else ""


def _reference(answer: dict[str, Any]) -> str:
    """Adyen's own; it becomes part of a path."""
    reference = text_in(answer, "pspReference")
    return reference if _REFERENCE.fullmatch(reference) else ""
