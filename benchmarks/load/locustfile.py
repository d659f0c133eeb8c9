"""Shoppers and merchants on the running stack, each answer written down: `make load`, or locust's own page.

A user checks out, sometimes twice or with another content under the same id, polls every two seconds until
the payment is at rest, goes to the payer's page where it must, and then captures, cancels or refunds. A wrong
answer is a failure at once; what no single answer shows, `tollgate verify` finds at the end, and the exit
code says so.

The stack is that of TOLLGATE_HOME, else ./.tollgate. `LOAD_LOG` is where the client log goes, `LOAD_SEED`
draws other checkouts. What means "come again" (503, 429, no answer) is sent again, as a client must; it
counts as a failure, refusals only where no `LOAD_MAY_REFUSE` says that the machine has too much else to do.
"""

from __future__ import annotations

import os
import tempfile
import time
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from locust import FastHttpUser, between, events, task
from locust.env import Environment

from benchmarks.load.checking import REFUSALS, verified
from benchmarks.load.shop import Checkout, draw
from tollgate.cli.pay import running_stack
from tollgate.cli.verify import leak_scan
from tollgate.client_log import ClientLog
from tollgate.clock import SystemClock

POLL_S: Final = 2.0
_PATIENCE_S: Final = 120.0  # how long a payment or an operation may take
_TRIES_MAX: Final = 8
_AGAIN_S: Final = 0.5
_RESTS: Final = frozenset({"succeeded", "authorized", "failed", "canceled", "refunded", "partially_refunded"})
_OPEN: Final = ("pending", "processing")

_stack = running_stack(None)
_log = ClientLog(
    Path(os.environ.get("LOAD_LOG") or Path(tempfile.mkdtemp(prefix="tollgate-load-")) / "told.jsonl"),
    _stack.merchant,
    leak_scan(_stack).in_text,
)
_clock = SystemClock()
_began_us = _clock.now_us()
_seed = int(os.environ.get("LOAD_SEED", "1"))
_may_refuse = bool(os.environ.get("LOAD_MAY_REFUSE"))
_numbers = count()


class Shopper(FastHttpUser):
    """One at a time: a checkout, and all that comes of it."""

    host = _stack.base_url
    wait_time = between(0.2, 1.0)
    connection_timeout = 10.0
    network_timeout = 30.0
    max_retries = 0

    def on_start(self) -> None:
        self.random = Random(_seed * 1_000_003 + next(_numbers))

    @task
    def buy(self) -> None:
        checkout = draw(self.random)
        if not self._pay(checkout):
            return
        payment = self._follow(checkout)
        if payment is None or payment["status"] not in ("succeeded", "authorized"):
            return
        match checkout.then:
            case "capture":
                self._operate(checkout, "capture", {"amount": max(1, payment["amount"] // 2)})
            case "cancel":
                self._operate(checkout, "cancel", {})
            case "refund":
                self._operate(checkout, "refunds", {})
            case "refunds":
                part = max(1, payment["amount"] // 3)
                self._operate(checkout, "refunds", {"amount": part})
                self._operate(checkout, "refunds", {"amount": part})

    def _pay(self, checkout: Checkout) -> bool:
        status, _ = self._post(checkout, "/v1/payments", checkout.body, "", "POST payment", (202,))
        if checkout.is_replayed and status == 202:
            self._post(checkout, "/v1/payments", checkout.body, "", "POST the same again", (200,))
        if checkout.is_contradicted and status == 202:
            other = checkout.body | {"amount": checkout.body["amount"] + 1}
            self._post(checkout, "/v1/payments", other, "", "POST other content", (422,))
        return status in (200, 202)

    def _follow(self, checkout: Checkout) -> dict[str, Any] | None:
        """Until the payment is at rest; None when it never was."""
        path, etag, visited = f"/v1/payments/{checkout.id}", "", False
        for _ in range(round(_PATIENCE_S / POLL_S)):
            time.sleep(POLL_S)
            headers = {"If-None-Match": etag} if etag else {}
            status, payment = self._ask(checkout, "GET", path, None, headers, "GET payment", (200, 304))
            if status != 200:
                continue
            etag = f'"{payment["version"]}"'
            if payment["status"] in _RESTS:
                return payment
            if payment["status"] == "requires_action" and not visited:
                self._visit(payment["next_action"]["url"], checkout)
                visited = True
        self._failed("GET payment", f"{checkout.id} did not come to rest within {_PATIENCE_S:g} s")
        return None

    def _visit(self, url: str, checkout: Checkout) -> None:
        """The payer's part, at the PSP: nothing that Tollgate tells."""
        body = f"outcome={'approve' if checkout.payer_approves else 'decline'}"
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        with self.client.request(
            "POST", url, name="payer's page", data=body, headers=headers, catch_response=True
        ) as response:
            if response.status_code == 200:
                response.success()

    def _operate(self, checkout: Checkout, what: str, body: dict[str, Any]) -> None:
        """Under one key until it was heard; then until it has ended."""
        key = f"{what}-{self.random.getrandbits(48):012x}"
        path = f"/v1/payments/{checkout.id}/{what}"
        status, operation = self._post(checkout, path, body, key, f"POST {what}", (200, 202))
        if status not in (200, 202):
            return
        if self.random.random() < 0.2:
            self._post(checkout, path, body, key, f"POST the same {what} again", (200,))
        of = f"/v1/payments/{checkout.id}/operations/{operation['id']}"
        for _ in range(round(_PATIENCE_S / POLL_S)):
            status, operation = self._ask(checkout, "GET", of, None, {}, "GET operation", (200,))
            if status == 200 and operation["status"] not in _OPEN:
                if operation["status"] == "failed":
                    self._failed(f"POST {what}", f"{checkout.id}: {operation['failure']}")
                return
            time.sleep(POLL_S)
        self._failed("GET operation", f"{of} did not end within {_PATIENCE_S:g} s")

    def _post(
        self,
        checkout: Checkout,
        path: str,
        body: dict[str, Any],
        key: str,
        name: str,
        expected: tuple[int, ...],
    ) -> tuple[int, dict[str, Any]]:
        """As often as the answer means: again. From the second time on a replay is as good."""
        headers = {"Idempotency-Key": key} if key else {"X-PAYMENT-CHECKOUT-ID": checkout.id}
        for tried in range(_TRIES_MAX):
            fine = expected if not tried else (*expected, 200)
            status, document = self._ask(checkout, "POST", path, body, headers, name, fine)
            again = status in (0, 429) or status >= 500 or document.get("code") == "not_yet_processed"
            if not again:
                break
            time.sleep(_AGAIN_S * (tried + 1))
        return status, document

    def _ask(
        self,
        checkout: Checkout,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        headers: dict[str, str],
        name: str,
        expected: tuple[int, ...],
    ) -> tuple[int, dict[str, Any]]:
        """Status and body of one answer, which is written down."""
        own = {"Authorization": f"Bearer {_stack.api_key}", "Content-Type": "application/json"}
        sent_us = _clock.now_us()
        with self.client.request(
            method,
            path,
            name=name,
            data=None if body is None else orjson.dumps(body).decode(),
            headers=own | headers,
            catch_response=True,
        ) as response:
            status, raw = response.status_code, response.content or b""
            _log.write(
                sent_us=sent_us,
                at_us=_clock.now_us(),
                method=method,
                path=urlsplit(path).path,
                status=status,
                body=raw,
                checkout_id=checkout.id,
                idempotency_key=headers.get("Idempotency-Key", ""),
                request=body,
                etag=(response.headers or {}).get("ETag", ""),
            )
            if status in expected or (_may_refuse and status in REFUSALS):
                response.success()
            else:
                response.failure(f"{checkout.id}: {status} {raw[:200].decode('utf-8', 'replace')}")
        return status, orjson.loads(raw) if raw.startswith(b"{") else {}

    def _failed(self, name: str, why: str) -> None:
        """What no single answer was wrong about."""
        self.environment.events.request.fire(
            request_type="",
            name=name,
            response_time=0,
            response_length=0,
            exception=TimeoutError(why),
            context={},
        )


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def compare_with_all_that_is_known(environment: Environment, **_rest: object) -> None:
    """Locust's exit code is 1 for any failure; a finding is one more."""
    _log.close()
    code = verified([_log.path], _began_us)
    failures = environment.stats.total.num_failures
    environment.process_exit_code = code or (1 if failures else 0)
