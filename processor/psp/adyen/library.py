"""Adyen's own library, as the one that knows its API: paths and version, the hosts of test and live, headers.

It is synchronous and encodes bodies itself. Its HTTP client is replaced, through the interface it has for
that, by one that sends nothing and hands back what would go out: the adapter sends that, the stored bytes as
they are, over connections of its own. The library never retries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from Adyen import AdyenClient
from Adyen.services.checkout import AdyenCheckoutApi

from processor.psp.adyen.orders import CANCEL, CAPTURE, PAY, REFUND
from processor.psp.interface import PspRequest

_SERVICE: Final = "checkout"


@dataclass(frozen=True, slots=True)
class AdyenAccount:
    """`live_prefix` is the live endpoints' own part of their host name; None means test. `url` stands in for
    Adyen's host, for a double of it. `return_url` is where payers come back to when a payment names no other.
    """

    api_key: str = field(repr=False)
    merchant_account: str
    return_url: str
    live_prefix: str | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What the library would have sent."""

    url: str
    headers: Mapping[str, str] = field(repr=False)  # holds the API key


class _Handing:
    """In place of the library's HTTP client. What it returns as the raw request is the result's."""

    def __init__(self, user_agent: str) -> None:
        self.user_agent = user_agent

    def request(
        self, method: str, url: str, json: object = None, xapikey: str = "", headers: Any = None
    ) -> tuple[str, Outgoing, int, dict[str, str]]:
        own = {"x-api-key": xapikey, "Content-Type": "application/json"}
        return "{}", Outgoing(url, {**(headers or {}), **own}), 200, {}


class AdyenLibrary:
    """Pure: it opens no connection."""

    def __init__(self, account: AdyenAccount) -> None:
        self._client = AdyenClient(
            xapikey=account.api_key,
            platform="live" if account.live_prefix else "test",
            live_endpoint_prefix=account.live_prefix,
        )
        self._client.http_client = _Handing(f"{self._client.USER_AGENT_SUFFIX}{self._client.LIB_VERSION}")
        self._client.http_init = True
        checkout = AdyenCheckoutApi(client=self._client)
        self._payments = checkout.payments_api
        self._modifications = checkout.modifications_api
        own = urlsplit(account.url or _handed(self._payments.payments({})).url)
        self._origin = urlunsplit((own.scheme, own.netloc, "", "", ""))

    def path_of(self, step: str, reference: str) -> str:
        """Where `step` of the payment with Adyen's `reference` goes, version and all."""
        modify: dict[str, Callable[..., Any]] = {
            CAPTURE: self._modifications.capture_authorised_payment,
            CANCEL: self._modifications.cancel_authorised_payment_by_psp_reference,
            REFUND: self._modifications.refund_captured_payment,
        }
        if step == PAY:
            result = self._payments.payments({})
        elif step == CANCEL and not reference:
            result = self._modifications.cancel_authorised_payment({})
        else:
            result = modify[step]({}, reference)
        return urlsplit(_handed(result).url).path

    def outgoing(self, request: PspRequest) -> Outgoing:
        """The address and headers of a stored request."""
        address = self._origin + request.path
        return _handed(
            self._client.call_adyen_api(
                request.body, _SERVICE, request.method, address, request.idempotency_key
            )
        )


def _handed(result: Any) -> Outgoing:
    outgoing = result.raw_request
    if not isinstance(outgoing, Outgoing):
        raise TypeError("Adyen's library did not use the HTTP client it was given")
    return outgoing
