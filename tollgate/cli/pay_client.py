"""The client that every user of Tollgate writes: POST, retry with the same id, poll until the end.

Any 5xx, a 429 and no answer mean the same: send it again. The id makes that safe. Bounded by a deadline per
payment, counted, and backed off.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import aiohttp
import orjson

from tollgate.cli.pay_orders import Order
from tollgate.client_log import ClientLog
from tollgate.clock import Clock
from tollgate.status import BY_NAME, OPEN, REQUIRES_ACTION, StatusValue

CALL_TIMEOUT_S: Final = 10.0
BACKOFF_MIN_S: Final = 0.1
BACKOFF_MAX_S: Final = 2.0


@dataclass(frozen=True)
class Polling:
    """How often a payment is asked for: after `first_s`, then `growth` times longer, at most `max_s`."""

    first_s: float
    growth: float = 1.0
    max_s: float = 0.5


@dataclass
class Paid:
    """What a client was told about one payment. Times are seconds since it was first sent."""

    order: Order
    sent_at_us: int
    accepted_after_s: float | None = None
    replayed: bool = False
    ended_after_s: float | None = None
    retries: int = 0
    payment: dict[str, Any] = field(default_factory=dict)  # the last one told
    refusal: str = ""  # why it never was accepted, or was not seen to its end

    @property
    def status(self) -> StatusValue | None:
        return BY_NAME.get(self.payment.get("status", ""))


OnStatus = Callable[[Paid, float], None]


class PayClient:
    """Pays against one base URL. Use as an async context manager."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        concurrency: int,
        timeout_s: float,
        polling: Polling,
        clock: Clock,
        rng: random.Random,
        log: ClientLog | None = None,
    ) -> None:
        """Every answer is written to `log`."""
        self._payments = base_url.rstrip("/") + "/v1/payments"
        self._timeout_s = timeout_s
        self._polling = polling
        self._clock = clock
        self._rng = rng
        self._log = log
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=concurrency),
            timeout=aiohttp.ClientTimeout(total=CALL_TIMEOUT_S),
            headers={"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def pay(self, order: Order, on_status: OnStatus) -> Paid:
        """Returns when the payment has come to rest, was refused, or the time is up (`Paid.refusal`).

        `on_status` is called at every new version that is seen, with the seconds since the first send.
        """
        paid = Paid(order, self._clock.now_us())
        started = self._clock.monotonic()
        deadline = started + self._timeout_s
        if await self._submit(paid, started, deadline):
            on_status(paid, paid.accepted_after_s or 0.0)
            await self._follow(paid, started, deadline, on_status)
        return paid

    async def _submit(self, paid: Paid, started: float, deadline: float) -> bool:
        headers = {"X-PAYMENT-CHECKOUT-ID": paid.order.checkout_id}
        while (answer := await self._call("POST", self._payments, headers, paid.order)).must_retry:
            paid.retries += 1
            if not await self._back_off(paid.retries, deadline):
                paid.refusal = f"no acceptance within {self._timeout_s:g} s; the last try: {answer.problem}"
                return False
        if answer.status not in (200, 202):
            paid.refusal = answer.problem
            return False
        paid.accepted_after_s = self._clock.monotonic() - started
        paid.replayed = answer.status == 200
        paid.payment = answer.document
        return True

    async def _follow(self, paid: Paid, started: float, deadline: float, on_status: OnStatus) -> None:
        url = f"{self._payments}/{paid.order.checkout_id}"
        wait_s = self._polling.first_s
        while not _at_rest(paid):
            if self._clock.monotonic() > deadline:
                paid.refusal = f"still {paid.payment['status']} after {self._timeout_s:g} s"
                return
            await asyncio.sleep(wait_s)
            wait_s = min(self._polling.max_s, wait_s * self._polling.growth)
            etag = {"If-None-Match": f'"{paid.payment["version"]}"'}
            answer = await self._call("GET", url, etag, paid.order)
            if answer.must_retry or answer.status == 404:  # 404: its shard is a moment behind, or it is lost
                paid.retries += 1
                wait_s = max(wait_s, BACKOFF_MIN_S)
            elif answer.status == 200 and answer.document["version"] > paid.payment["version"]:
                paid.payment = answer.document
                on_status(paid, self._clock.monotonic() - started)
        paid.ended_after_s = self._clock.monotonic() - started

    async def _back_off(self, tries: int, deadline: float) -> bool:
        """False when the deadline comes first."""
        longest = min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2 ** min(tries, 10))
        wait_s = self._rng.uniform(BACKOFF_MIN_S / 2, longest)
        if self._clock.monotonic() + wait_s > deadline:
            return False
        await asyncio.sleep(wait_s)
        return True

    async def _call(self, method: str, url: str, headers: dict[str, str], order: Order) -> _Answer:
        sent_us = self._clock.now_us()
        body = order.raw if method == "POST" else None
        raw, etag = b"", ""
        try:
            async with self._session.request(method, url, headers=headers, data=body) as response:
                raw, etag = await response.read(), response.headers.get("ETag", "")
                answer = _Answer(response.status, _document(raw))
        except (aiohttp.ClientError, TimeoutError) as error:
            answer = _Answer(0, {"detail": f"no answer ({type(error).__name__})"})
        if self._log is not None:
            self._log.write(
                sent_us=sent_us,
                at_us=self._clock.now_us(),
                method=method,
                path=urlsplit(url).path,
                status=answer.status,
                body=raw,
                checkout_id=order.checkout_id,
                request=None if body is None else orjson.loads(body),
                etag=etag,
            )
        return answer


@dataclass(frozen=True)
class _Answer:
    """`status` 0: there was none."""

    status: int
    document: dict[str, Any]

    @property
    def must_retry(self) -> bool:
        return self.status in (0, 429) or self.status >= 500

    @property
    def problem(self) -> str:
        code = self.document.get("code", "")
        detail = self.document.get("detail", "")
        errors = "; ".join(
            f"{wrong['field']}: {wrong['message']}" for wrong in self.document.get("errors", [])
        )
        return " ".join(part for part in (str(self.status or ""), code, detail, errors) if part)


def _at_rest(paid: Paid) -> bool:
    status = paid.status
    if status == REQUIRES_ACTION:
        return paid.order.expected == REQUIRES_ACTION
    return status is not None and status not in OPEN


def _document(raw: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {"detail": raw[:200].decode("utf-8", "replace")}
    return document if isinstance(document, dict) else {}
