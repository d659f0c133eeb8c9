"""The PSP simulator's adapter: what is sent, and what each answer of it comes to.

An Unknown is resolved by sending the stored bytes again under the same key: the simulator keeps its answers
for ever, and the adapter claims a day of it, as most PSPs do. What it documents as without effect: 402 and
400 (final), of an operation 409 and 422 as well, and 429 and 503 `unavailable_no_effect` (come again). Every
other 5xx may have had one.
"""

from __future__ import annotations

import math
from typing import Any, Final

import orjson

from processor.psp.answer import document_in, seconds_in, text_in, told_in
from processor.psp.exchange import Exchanges, NeverConnected, NoWholeAnswer
from processor.psp.interface import (
    ActionRequired,
    Approved,
    Awaited,
    Declined,
    Done,
    OperationKind,
    Order,
    Outcome,
    PspPlan,
    PspRequest,
    PspTerms,
    Resolution,
    Retryable,
    Unknown,
)
from tollgate.ids import payment_key
from tollgate.v1.payment_pb2 import Capture, Payment

NO_EFFECT_CODE: Final = "unavailable_no_effect"
CHARGE: Final = "charge"
CAPTURE: Final = "capture"
CANCEL: Final = "cancel"
REFUND: Final = "refund"
_REPLAY: Final = PspTerms(Resolution.REPLAY, key_retention_s=24 * 60 * 60.0)
PLAN: Final = PspPlan(
    steps={
        OperationKind.PAYMENT: (CHARGE,),
        OperationKind.CAPTURE: (CAPTURE,),
        OperationKind.CANCEL: (CANCEL,),
        OperationKind.REFUND: (REFUND,),
    },
    terms=dict.fromkeys((CHARGE, CAPTURE, CANCEL, REFUND), _REPLAY),
    authorization_window_s=7 * 24 * 60 * 60.0,
)
_CHARGES: Final = "/v1/charges"
_PATH_OF: Final = {CAPTURE: "capture", CANCEL: "cancel", REFUND: "refunds"}
_REFUSED_OPERATION: Final = frozenset({"invalid_transition", "amount_too_large"})
_HEADERS: Final = {"Content-Type": "application/json", "User-Agent": "tollgate"}
_CONNECT_SHARE: Final = 0.4  # of the time-out; past it nothing was sent


class SimulatorPsp:
    """Build it inside a running event loop: it holds a bounded pool of keep-alive connections."""

    name = "simulator"

    def __init__(
        self, url: str, timeout_s: float, connections_max: int = 64, replayed_s_max: float = math.inf
    ) -> None:
        self.plan = PLAN.replaying_for(replayed_s_max)
        self._exchanges = Exchanges(url, timeout_s, timeout_s * _CONNECT_SHARE, connections_max)

    def build(self, order: Order, step: str, idempotency_key: str) -> PspRequest:
        payment = order.payment
        if step != CHARGE:
            part = {} if step == CANCEL else {"amount": order.amount}
            path = f"{_CHARGES}/{order.reference}/{_PATH_OF[step]}"
            return PspRequest("POST", path, idempotency_key, orjson.dumps(part))
        content = {
            "checkout_id": payment.checkout_id,
            "merchant": payment.merchant,
            "amount": order.amount,
            "currency": payment.currency,
            "capture": "manual" if payment.capture == Capture.CAPTURE_MANUAL else "automatic",
            "payment_method": payment.payment_method,
            "reference": payment_key(payment.merchant, payment.checkout_id),
        }
        return PspRequest("POST", _CHARGES, idempotency_key, orjson.dumps(content))

    async def send(self, request: PspRequest, traceparent: str) -> Outcome:
        headers = _HEADERS | {"Idempotency-Key": request.idempotency_key}
        if traceparent and traceparent.isascii() and traceparent.isprintable():
            headers["traceparent"] = traceparent
        try:
            answer = await self._exchanges.ask(request.method, request.path, headers, request.body)
        except NeverConnected as error:
            return Retryable(f"no connection: {error}")
        except NoWholeAnswer as error:
            return Unknown(f"no whole answer: {error}")
        return interpret(request, answer.status, answer.retry_after, answer.body)

    async def ask(self, payment: Payment) -> Outcome:
        """Reads the charge itself: the simulator's reads are as consistent as its writes."""
        try:
            answer = await self._exchanges.ask("GET", f"{_CHARGES}/{payment.psp_reference}", _HEADERS)
        except (NeverConnected, NoWholeAnswer) as error:
            return Unknown(f"no whole answer: {error}", payment.psp_reference)
        if answer.status != 200:
            return Unknown(f"the PSP answered {answer.status}", payment.psp_reference)
        return interpret_standing(payment, answer.body)

    async def look_up(self, request: PspRequest, reference: str) -> Outcome:
        return Unknown("the simulator is asked by sending the same bytes again", reference)

    async def close(self) -> None:
        await self._exchanges.close()


def interpret(request: PspRequest, status: int, retry_after: str | None, answer: bytes) -> Outcome:
    """What an answer comes to. Pure; anything that isn't exactly as documented is Unknown."""
    document = document_in(answer)
    error = document.get("error")
    error = error if isinstance(error, dict) else {}
    code = told_in(error, "code")
    match status:
        case 200 | 202 if request.path == _CHARGES:
            sent = document_in(request.body)
            return _interpret_charge(document, sent["amount"], sent["currency"], sent["reference"])
        case 200:
            return _interpret_operation(request, document)
        case 402 | 400 if code:
            return Declined(code, told_in(error, "message"), text_in(document, "id"))
        case 409 | 422 if request.path != _CHARGES and code in _REFUSED_OPERATION:
            return Declined(code, told_in(error, "message"))
        case 429:
            return Retryable("the PSP answered 429", seconds_in(retry_after))
        case 503 if code == NO_EFFECT_CODE:
            return Retryable(f"the PSP answered 503 {NO_EFFECT_CODE}", seconds_in(retry_after))
        case _:
            return Unknown(f"the PSP answered {status} {code}".rstrip())


def interpret_standing(payment: Payment, answer: bytes) -> Outcome:
    """How the charge of `payment` stands, as the PSP shows it. Pure."""
    charge = document_in(answer)
    match charge.get("status"):
        case "declined":
            error = charge.get("error")
            error = error if isinstance(error, dict) else {}
            return Declined(
                told_in(error, "code") or "declined", told_in(error, "message"), payment.psp_reference
            )
        case "canceled":
            return Declined("canceled", "The payment was canceled at the PSP.", payment.psp_reference)
        case _:
            key = payment_key(payment.merchant, payment.checkout_id)
            return _interpret_charge(charge, payment.amount, payment.currency, key)


def _interpret_charge(charge: dict[str, Any], amount: int, currency: str, key: str) -> Outcome:
    reference = text_in(charge, "id")
    told = tuple(charge.get(name) for name in ("amount", "currency", "reference"))
    if not reference or told != (amount, currency, key):
        return Unknown("the PSP's answer is not about what was sent", reference)
    match charge.get("status"):
        case "succeeded":
            return Approved(reference, amount, currency, captured=True)
        case "authorized":
            return Approved(reference, amount, currency, captured=False)
        case "requires_action" if url := text_in(charge, "url"):
            return ActionRequired(reference, url)
        case "processing":
            return Awaited(reference)
        case other:
            return Unknown(f"the PSP's charge is {other}", reference)


def _interpret_operation(request: PspRequest, done: dict[str, Any]) -> Outcome:
    """A capture, a cancel or a refund. A cancel is of the whole, so no amount was sent."""
    reference, amount = text_in(done, "id"), done.get("amount")
    _, _, charge, path = request.path.removeprefix("/").split("/")
    about = done.get("charge") == charge and _PATH_OF.get(text_in(done, "type")) == path
    if not (reference and about and done.get("status") == "succeeded" and type(amount) is int):
        return Unknown("the PSP's answer is not about what was sent", reference)
    if amount != document_in(request.body).get("amount", amount):
        return Unknown("the PSP's answer is not about the amount that was sent", reference)
    return Done(reference, amount, text_in(done, "currency"))
