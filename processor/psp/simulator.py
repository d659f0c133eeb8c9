"""The PSP simulator's adapter: what is sent, and what each answer of it comes to.

An Unknown is resolved by sending the stored bytes again under the same key: the simulator keeps its answers
for ever, and the adapter claims a day of it, as most PSPs do. What it documents as without effect:
402 and 400 (final), 429 and 503 `unavailable_no_effect` (come again). Every other 5xx may have had one.
"""

from __future__ import annotations

from typing import Any, Final

import aiohttp
import orjson

from processor.psp.interface import (
    ActionRequired,
    Approved,
    Declined,
    Outcome,
    PspRequest,
    Resolution,
    Retryable,
    Unknown,
)
from tollgate.ids import payment_key
from tollgate.v1.payment_pb2 import Capture, Payment

ANSWER_BYTES_MAX: Final = 65_536
TEXT_MAX: Final = 500  # of what a refusal says, as it is kept
NO_EFFECT_CODE: Final = "unavailable_no_effect"
_CONNECT_SHARE: Final = 0.4  # of the time-out; past it nothing was sent


class SimulatorPsp:
    """Build it inside a running event loop: it holds a bounded pool of keep-alive connections."""

    name = "simulator"
    resolution = Resolution.REPLAY
    key_retention_s = 24 * 60 * 60.0

    def __init__(self, url: str, timeout_s: float, connections_max: int = 64) -> None:
        self._url = url.rstrip("/")
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections_max, limit_per_host=connections_max),
            timeout=aiohttp.ClientTimeout(total=timeout_s, connect=timeout_s * _CONNECT_SHARE),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Content-Type": "application/json", "User-Agent": "tollgate"},
        )

    def build_charge(self, payment: Payment, idempotency_key: str) -> PspRequest:
        order = {
            "checkout_id": payment.checkout_id,
            "merchant": payment.merchant,
            "amount": payment.amount,
            "currency": payment.currency,
            "capture": "manual" if payment.capture == Capture.CAPTURE_MANUAL else "automatic",
            "payment_method": payment.payment_method,
            "reference": payment_key(payment.merchant, payment.checkout_id),
        }
        return PspRequest("POST", "/v1/charges", idempotency_key, orjson.dumps(order))

    async def send(self, request: PspRequest, traceparent: str) -> Outcome:
        """aiohttp sends a POST once and never again by itself, on a stale connection either."""
        headers = {"Idempotency-Key": request.idempotency_key}
        if traceparent and traceparent.isascii() and traceparent.isprintable():
            headers["traceparent"] = traceparent
        try:
            async with self._session.request(
                request.method,
                self._url + request.path,
                data=request.body,
                headers=headers,
                allow_redirects=False,
            ) as response:
                answer = await _read_bounded(response)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return Retryable(f"no connection: {type(error).__name__}")
        except (TimeoutError, aiohttp.ClientError) as error:
            return Unknown(f"no whole answer: {type(error).__name__}")
        return interpret(request, response.status, response.headers.get("Retry-After"), answer)

    async def look_up(self, request: PspRequest, reference: str) -> Outcome:
        return Unknown("the simulator is asked by sending the same bytes again", reference)

    async def close(self) -> None:
        await self._session.close()


def interpret(request: PspRequest, status: int, retry_after: str | None, answer: bytes) -> Outcome:
    """What an answer comes to. Pure; anything that isn't exactly as documented is Unknown."""
    document = _document(answer)
    error = document.get("error")
    error = error if isinstance(error, dict) else {}
    code = _told(error, "code")
    match status:
        case 200 | 202:
            return _interpret_charge(request, document)
        case 402 | 400 if code:
            return Declined(code, _told(error, "message"), _text(document, "id"))
        case 429:
            return Retryable("the PSP answered 429", _seconds(retry_after))
        case 503 if code == NO_EFFECT_CODE:
            return Retryable(f"the PSP answered 503 {NO_EFFECT_CODE}", _seconds(retry_after))
        case _:
            return Unknown(f"the PSP answered {status} {code}".rstrip())


def _interpret_charge(request: PspRequest, charge: dict[str, Any]) -> Outcome:
    reference = _text(charge, "id")
    sent = _document(request.body)
    if not reference or any(charge.get(name) != sent[name] for name in ("amount", "currency", "reference")):
        return Unknown("the PSP's answer is not about what was sent", reference)
    match charge.get("status"):
        case "succeeded":
            return Approved(reference, charge["amount"], charge["currency"], captured=True)
        case "authorized":
            return Approved(reference, charge["amount"], charge["currency"], captured=False)
        case "requires_action" if url := _text(charge, "url"):
            return ActionRequired(reference, url)
        case other:
            return Unknown(f"the PSP's charge is {other}", reference)


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    """The whole body; nothing when it is longer than any answer."""
    answer = bytearray()
    async for chunk in response.content.iter_chunked(ANSWER_BYTES_MAX):
        answer += chunk
        if len(answer) > ANSWER_BYTES_MAX:
            response.close()
            return b""
    return bytes(answer)


def _document(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`; empty when it holds none."""
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _text(document: dict[str, Any], name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""


def _told(error: dict[str, Any], name: str) -> str:
    """A PSP's own words: bounded, and without the one character that Postgres can't store."""
    return _text(error, name).replace("\0", "")[:TEXT_MAX]


def _seconds(retry_after: str | None) -> float | None:
    if retry_after is None or not retry_after.isascii() or not retry_after.isdigit():
        return None
    return float(retry_after)
