"""A template: copy this file, and its double (tests/fixtures/template_double.py), for a PSP of your own.

It is a whole adapter of an imaginary PSP, held by the contract suite like every other, and set up nowhere. It
stands here and not among the examples, so that types, tests and tidiness are checked where its copy will be.
What to change is numbered; docs/adding-a-psp.md goes through it in this order.
"""

from __future__ import annotations

from typing import Any, Final

import aiohttp
import orjson

from processor.psp.answer import document_in, read_bounded, seconds_in, text_in, told_in
from processor.psp.interface import (
    ActionRequired,
    Approved,
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

# 1. The steps of each kind of operation. A name is for ever: the key of a stored request hangs on it. This
# PSP does everything in one request; one that makes a payment before it moves money has two (as Stripe).
PAY: Final = "pay"
CAPTURE: Final = "capture"
VOID: Final = "void"
REFUND: Final = "refund"
# 2. How an Unknown is resolved, by step. REPLAY: the same bytes under the same key, while the PSP certainly
# knows it. LOOKUP: a read that is as consistent as the PSP's writes. WEBHOOK: only the PSP can tell.
_TERMS: Final = PspTerms(Resolution.REPLAY, key_retention_s=24 * 60 * 60.0)
PLAN: Final = PspPlan(
    steps={
        OperationKind.PAYMENT: (PAY,),
        OperationKind.CAPTURE: (CAPTURE,),
        OperationKind.CANCEL: (VOID,),  # one step; it also ends what waits for its payer
        OperationKind.REFUND: (REFUND,),
    },
    terms=dict.fromkeys((PAY, CAPTURE, VOID, REFUND), _TERMS),
    authorization_window_s=7 * 24 * 60 * 60.0,  # when it is over, `ask` is asked
)
_PAYMENTS: Final = "/payments"
_PATH_OF: Final = {CAPTURE: "captures", VOID: "voids", REFUND: "refunds"}
_CONNECT_SHARE: Final = 0.4  # of the time-out; past it nothing was sent


class TemplatePsp:
    """Build it inside a running event loop: it holds a bounded pool of keep-alive connections."""

    name = "template"  # 3. What a payment names as its `psp`
    plan = PLAN

    def __init__(self, api_key: str, url: str, timeout_s: float, connections_max: int = 64) -> None:
        self._url = url.rstrip("/")
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections_max, limit_per_host=connections_max),
            timeout=aiohttp.ClientTimeout(total=timeout_s, connect=timeout_s * _CONNECT_SHARE),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"},
        )

    def build(self, order: Order, step: str, idempotency_key: str) -> PspRequest:
        """4. Exactly what goes out. Pure: it is stored before the first send and never built again."""
        payment = order.payment
        if step != PAY:
            part = {} if step == VOID else {"amount": order.amount}
            path = f"{_PAYMENTS}/{order.reference}/{_PATH_OF[step]}"
            return PspRequest("POST", path, idempotency_key, orjson.dumps(part))
        content = {
            "amount": order.amount,
            "currency": payment.currency,
            "capture": payment.capture != Capture.CAPTURE_MANUAL,
            "method": payment.payment_method,
            "reference": payment_key(payment.merchant, payment.checkout_id),
        }
        return PspRequest("POST", _PAYMENTS, idempotency_key, orjson.dumps(content))

    async def send(self, request: PspRequest, traceparent: str) -> Outcome:
        """5. One call, never repeated here. Whether a connection stood decides between the two refusals."""
        headers = {"Idempotency-Key": request.idempotency_key}
        try:
            async with self._session.request(
                request.method,
                self._url + request.path,
                data=request.body,
                headers=headers,
                allow_redirects=False,
            ) as response:
                answer = await read_bounded(response)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return Retryable(f"no connection: {type(error).__name__}")
        except (TimeoutError, aiohttp.ClientError) as error:
            return Unknown(f"no whole answer: {type(error).__name__}")
        return interpret(request, response.status, response.headers.get("Retry-After"), answer)

    async def look_up(self, request: PspRequest, reference: str) -> Outcome:
        """6. For Resolution.LOOKUP alone: what came of `request`. Retryable only when it never was."""
        return Unknown("this PSP is asked by sending the same bytes again", reference)

    async def ask(self, payment: Payment) -> Outcome:
        """7. How the payment stands now, after its execution was answered."""
        url = f"{self._url}{_PAYMENTS}/{payment.psp_reference}"
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                answer = await read_bounded(response)
        except (TimeoutError, aiohttp.ClientError) as error:
            return Unknown(f"no whole answer: {type(error).__name__}", payment.psp_reference)
        if response.status != 200:
            return Unknown(f"the PSP answered {response.status}", payment.psp_reference)
        asked = (payment.amount, payment.currency, payment_key(payment.merchant, payment.checkout_id))
        return _standing(document_in(answer), asked)

    async def close(self) -> None:
        await self._session.close()


def interpret(request: PspRequest, status: int, retry_after: str | None, answer: bytes) -> Outcome:
    """8. What an answer comes to. Declined and Retryable are as documented; all else is Unknown. Pure."""
    document = document_in(answer)
    error = document.get("error")
    error = error if isinstance(error, dict) else {}
    code = told_in(error, "code")
    match status:
        case 200 | 201 if request.path == _PAYMENTS:
            sent = document_in(request.body)
            return _standing(document, (sent["amount"], sent["currency"], sent["reference"]))
        case 200 | 201:
            return _done(request, document)
        case 402 | 400 | 409 | 422 if code and code != "key_reused":
            return Declined(code, told_in(error, "text"), text_in(document, "id"))
        case 429:
            return Retryable("the PSP answered 429", seconds_in(retry_after))
        case _:
            return Unknown(f"the PSP answered {status} {code}".rstrip())


def _standing(document: dict[str, Any], asked: tuple[int, str, str]) -> Outcome:
    """9. A payment as the PSP shows it. An answer about anything else than what was sent is no answer."""
    reference = text_in(document, "id")
    if not reference or tuple(document.get(name) for name in ("amount", "currency", "reference")) != asked:
        return Unknown("the PSP's answer is not about what was sent", reference)
    match document.get("state"):
        case "paid" | "held" as state:
            return Approved(reference, asked[0], asked[1], captured=state == "paid")
        case "waiting" if url := text_in(document, "redirect"):
            return ActionRequired(reference, url)
        case "refused" | "void" as state:
            return Declined(told_in(document, "reason") or state, f"The payment is {state}.", reference)
        case state:
            return Unknown(f"the payment is {state}", reference)


def _done(request: PspRequest, document: dict[str, Any]) -> Outcome:
    """10. A capture, a cancel or a refund; a cancel is of the whole, so no amount was sent."""
    reference, amount = text_in(document, "id"), document.get("amount")
    asked = document_in(request.body).get("amount", amount)
    if not reference or type(amount) is not int or amount != asked:
        return Unknown("the PSP's answer is not about what was sent", reference)
    return Done(reference, amount, text_in(document, "currency"))
