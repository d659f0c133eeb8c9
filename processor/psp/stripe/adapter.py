"""Stripe's adapter: PaymentIntents, in steps whose effect stands at most once.

1. create makes a PaymentIntent without confirming it: no money moves. An Unknown of it is looked for by our
   key in Stripe's newest PaymentIntents; what isn't there is sent again, the same bytes under the same key.
2. confirm, capture and cancel are named by the PaymentIntent's id, which is stored by then. Each has its
   effect once in a PaymentIntent's life, and an Unknown of them is read from it.
3. refund carries our key as metadata. An Unknown of it is looked for in the payment's own refunds.

The library gives the pinned API version, the errors and the authentication. Its retries and its telemetry are
off. Neither a key nor an answer is ever logged here.
"""

from __future__ import annotations

import re
from typing import Any, Final

import aiohttp
import stripe

from processor.psp.interface import Order, Outcome, PspRequest, Retryable, Unknown
from processor.psp.stripe.answers import of_answer, of_look_up, of_refusal, of_standing
from processor.psp.stripe.requests import CREATE, INTENTS, PLAN, REFUND, REFUNDS, Sent, build
from processor.psp.stripe.transport import NeverConnected, NoWholeAnswer, OneRequest
from tollgate.errors import ConfigurationError
from tollgate.v1.payment_pb2 import Payment

PAGE_MAX: Final = 100  # Stripe's longest list
_KEY: Final = re.compile(r"[sr]k_(test|live)_")
_CONNECT_SHARE: Final = 0.4  # of the time-out; past it nothing was sent


class StripePsp:
    """Build it inside a running event loop: it holds a bounded pool of keep-alive connections. Raises
    ConfigurationError for a key of the other mode.
    """

    name = "stripe"
    plan = PLAN

    def __init__(
        self,
        api_key: str,
        url: str,
        timeout_s: float,
        *,
        live: bool = False,
        return_url: str | None = None,
        connections_max: int = 64,
    ) -> None:
        mode = _KEY.match(api_key)
        if mode is None or (mode[1] == "live") != live:
            raise ConfigurationError(
                f"psp.stripe.api_key is no secret key of Stripe's {'live' if live else 'test'} mode, which "
                "psp.stripe.live stands for. Correct one of the two and start again."
            )
        stripe.enable_telemetry = False
        self._api_key = api_key
        self._url = url.rstrip("/")
        self._live = live
        self._return_url = return_url
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections_max, limit_per_host=connections_max),
            timeout=aiohttp.ClientTimeout(total=timeout_s, connect=timeout_s * _CONNECT_SHARE),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    def build(self, order: Order, step: str, idempotency_key: str) -> PspRequest:
        return build(order, step, idempotency_key, self._return_url)

    async def send(self, request: PspRequest, traceparent: str) -> Outcome:
        """The trace goes no further: Stripe has no use for it."""
        sent = Sent.of(request)
        try:
            answer = await self._client(request.body).raw_request_async(
                "post", request.path, idempotency_key=request.idempotency_key
            )
        except NeverConnected as error:
            return Retryable(str(error))
        except NoWholeAnswer as error:
            return Unknown(str(error), sent.intent)
        except stripe.StripeError as error:
            return of_refusal(sent, error, self._live)
        return of_answer(sent, answer.data, self._live)

    async def look_up(self, request: PspRequest, reference: str) -> Outcome:
        """One call. The request itself names what it is about."""
        sent = Sent.of(request)
        if sent.step == CREATE:
            found = await self._get(INTENTS, limit=PAGE_MAX)
        elif sent.step == REFUND:
            found = await self._get(REFUNDS, payment_intent=sent.intent, limit=PAGE_MAX)
        else:
            found = await self._get(f"{INTENTS}/{sent.intent}")
        return found if isinstance(found, Unknown) else of_look_up(sent, found, self._live)

    async def ask(self, payment: Payment) -> Outcome:
        found = await self._get(f"{INTENTS}/{payment.psp_reference}")
        if isinstance(found, Unknown):
            return Unknown(found.reason, payment.psp_reference)
        return of_standing(payment.psp_reference, found, self._live)

    async def close(self) -> None:
        await self._session.close()

    async def _get(self, path: str, **asked: str | int) -> dict[str, Any] | Unknown:
        try:
            answer = await self._client().raw_request_async("get", path, **asked)
        except (NeverConnected, NoWholeAnswer) as error:
            return Unknown(str(error))
        except stripe.StripeError as error:
            return Unknown(f"Stripe answered {error.http_status}")
        return answer.data if isinstance(answer.data, dict) else {}

    def _client(self, body: bytes = b"") -> stripe.StripeClient:
        """One a request: a few objects (13 µs) over the shared connections."""
        return stripe.StripeClient(
            self._api_key,
            http_client=OneRequest(self._session, body),
            base_addresses={"api": self._url},
            max_network_retries=0,
        )
