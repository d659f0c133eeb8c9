"""Adyen's adapter: one request a step, over connections of its own.

A payment is answered at once, or by its payer's visit, or later. A capture, a cancel or a refund is received
at once and answered by a notification. Adyen can't be asked how a payment stands: an Unknown is resolved by
sending the stored bytes again under the same key, which Adyen keeps for at least 31 days, for a day; then a
person is asked. Everything else is told by notifications alone.
"""

from __future__ import annotations

from typing import Final

import aiohttp

from processor.psp.adyen.answers import interpret
from processor.psp.adyen.library import AdyenAccount, AdyenLibrary
from processor.psp.adyen.orders import CANCEL, CAPTURE, PAY, REFUND, is_expressible, order_body
from processor.psp.answer import document_in, read_bounded
from processor.psp.interface import (
    Declined,
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
from tollgate.v1.payment_pb2 import Payment

_DAY_S: Final = 24 * 60 * 60.0
_REPLAY: Final = PspTerms(Resolution.REPLAY, key_retention_s=31 * _DAY_S)
PLAN: Final = PspPlan(
    steps={
        OperationKind.PAYMENT: (PAY,),
        OperationKind.CAPTURE: (CAPTURE,),
        OperationKind.CANCEL: (CANCEL,),
        OperationKind.REFUND: (REFUND,),
    },
    terms=dict.fromkeys((PAY, CAPTURE, CANCEL, REFUND), _REPLAY),
    authorization_window_s=28 * _DAY_S,  # Adyen's own; a scheme's may end before
    can_be_asked=False,
)
# What Adyen has not answered within a day is no outage: some settings that are wrong get a 500 from it.
REPLAYED_S_MAX: Final = _DAY_S
_CONNECT_SHARE: Final = 0.4  # of the time-out; past it nothing was sent
_NO_SUCH_AMOUNT: Final = Declined(
    "invalid_amount", "The PSP has no minor unit of this currency; the amount is not a whole one."
)


class AdyenPsp:
    """Build it inside a running event loop: it holds a bounded pool of keep-alive connections."""

    name = "adyen"

    def __init__(
        self,
        account: AdyenAccount,
        timeout_s: float,
        connections_max: int = 64,
        replayed_s_max: float = REPLAYED_S_MAX,
    ) -> None:
        self.plan = PLAN.replaying_for(replayed_s_max)
        self._account = account
        self._library = AdyenLibrary(account)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections_max, limit_per_host=connections_max),
            timeout=aiohttp.ClientTimeout(total=timeout_s, connect=timeout_s * _CONNECT_SHARE),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    def build(self, order: Order, step: str, idempotency_key: str) -> PspRequest:
        account, path = self._account, self._library.path_of(step, order.reference)
        body = order_body(order, step, account.merchant_account, account.return_url, idempotency_key)
        return PspRequest("POST", path, idempotency_key, body)

    async def send(self, request: PspRequest, traceparent: str) -> Outcome:
        """aiohttp sends a POST once and never again by itself, on a stale connection either."""
        if not is_expressible(document_in(request.body)):
            return _NO_SUCH_AMOUNT
        outgoing = self._library.outgoing(request)
        try:
            async with self._session.request(
                request.method,
                outgoing.url,
                data=request.body,
                headers=outgoing.headers,
                allow_redirects=False,
            ) as response:
                answer = await read_bounded(response)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return Retryable(f"no connection: {type(error).__name__}")
        except (TimeoutError, aiohttp.ClientError) as error:
            return Unknown(f"no whole answer: {type(error).__name__}")
        return interpret(request, response.status, response.headers, answer)

    async def look_up(self, request: PspRequest, reference: str) -> Outcome:
        return Unknown("Adyen is asked by sending the same bytes again", reference)

    async def ask(self, payment: Payment) -> Outcome:
        return Unknown("Adyen tells how a payment stands by notifications alone", payment.psp_reference)

    async def close(self) -> None:
        await self._session.close()
