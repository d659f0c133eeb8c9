"""A million payments and ten million queries a day, at that rate: `make load-day [MINUTES=60]`.

11.6 payments and 116 queries a second through nginx, open loop: each request has its time, whoever waits, and
its latency counts from there. Queries are of payments made in this run, half of them of the newest. Whatever
was not answered as the contract says is a failure; a payment that got none is sent again with its id, as a
client must. Ends when all that was accepted is at rest, with `tollgate verify` over every answer. Exit 1:
failures or findings.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import aiohttp
import orjson
import uvloop

from benchmarks.load.checking import REFUSALS, verified
from benchmarks.load.shop import Checkout, draw
from tollgate.cli.pay import running_stack
from tollgate.cli.pay_report import percentiles
from tollgate.cli.verify import leak_scan
from tollgate.client_log import ClientLog
from tollgate.clock import SystemClock
from tollgate.errors import TollgateError
from tollgate.local.stack_json import StackJson

PAYMENTS_A_DAY: Final = 1_000_000
QUERIES_A_DAY: Final = 10_000_000
_DAY_S: Final = 86_400
_CALL_TIMEOUT_S: Final = 30.0
_CONNECTIONS_MAX: Final = 256
_IN_FLIGHT_MAX: Final = (
    4_000  # beyond it the machine stands still: what is due waits, and its latency shows it
)
_TRIES_MAX: Final = 20
_AGAIN_S: Final = 0.5
_TOLD_EVERY_S: Final = 5.0
_OPEN: Final = frozenset({"pending", "processing"})


@dataclass
class Account:
    """What came of it, by what was asked."""

    latencies_s: dict[str, list[float]] = field(default_factory=lambda: {"POST": [], "GET": []})
    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    refused: int = 0


class Day:
    """One run against a stack. Use inside of an event loop."""

    def __init__(self, stack: StackJson, session: aiohttp.ClientSession, log: ClientLog, seed: int) -> None:
        self.account = Account()
        self.accepted: list[str] = []
        self._payments = stack.base_url.rstrip("/") + "/v1/payments"
        self._session = session
        self._log = log
        self._random = Random(seed)
        self._clock = SystemClock()

    async def run(self, seconds: float) -> None:
        started = time.monotonic()
        slots = asyncio.Semaphore(_IN_FLIGHT_MAX)
        async with asyncio.TaskGroup() as calls:
            shown = asyncio.create_task(self._show(started, seconds))
            payments = self._send(started, seconds, PAYMENTS_A_DAY, self._pay, slots, calls)
            queries = self._send(started, seconds, QUERIES_A_DAY, self._query, slots, calls)
            await asyncio.gather(payments, queries)
            shown.cancel()

    async def _send(
        self,
        started: float,
        seconds: float,
        a_day: int,
        one: Any,
        slots: asyncio.Semaphore,
        calls: asyncio.TaskGroup,
    ) -> None:
        for number in range(round(a_day * seconds / _DAY_S)):
            due = started + number * _DAY_S / a_day
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await slots.acquire()
            calls.create_task(one(due)).add_done_callback(lambda _call: slots.release())

    async def _pay(self, due: float) -> None:
        checkout = draw(self._random)
        for tried in range(_TRIES_MAX):
            status, _ = await self._ask(
                "POST", self._payments, checkout, due, (202, 200) if tried else (202,)
            )
            if status in (200, 202):
                self.accepted.append(checkout.id)
                return
            if status and status < 500 and status != 429:
                return
            await asyncio.sleep(_AGAIN_S)
            due = time.monotonic()

    async def _query(self, due: float) -> None:
        if not self.accepted:
            return
        newest = max(0, len(self.accepted) - 200) if self._random.random() < 0.5 else 0
        checkout_id = self.accepted[self._random.randrange(newest, len(self.accepted))]
        await self._ask("GET", f"{self._payments}/{checkout_id}", checkout_id, due, (200,))

    async def _ask(
        self, method: str, url: str, about: Checkout | str, due: float, expected: tuple[int, ...]
    ) -> tuple[int, bytes]:
        checkout_id, body = (about, None) if isinstance(about, str) else (about.id, about.body)
        headers = {"X-PAYMENT-CHECKOUT-ID": checkout_id} if body is not None else {}
        sent_us, status, raw = self._clock.now_us(), 0, b""
        data = None if body is None else orjson.dumps(body)
        try:
            async with self._session.request(method, url, data=data, headers=headers) as response:
                raw = await response.read()
                status = response.status
        except (aiohttp.ClientError, TimeoutError) as error:
            raw = type(error).__name__.encode()
        self.account.latencies_s[method].append(time.monotonic() - due)
        self.account.answers[f"{method} {status or raw.decode()}"] += 1
        if status in REFUSALS:
            self.account.refused += 1
        elif status not in expected:
            self.account.failures.append(
                f"{method} {checkout_id}: {status} {raw[:200].decode(errors='replace')}"
            )
        self._log.write(
            sent_us=sent_us,
            at_us=self._clock.now_us(),
            method=method,
            path="/v1/payments" if body is not None else f"/v1/payments/{checkout_id}",
            status=status,
            body=raw if status else b"",
            checkout_id=checkout_id,
            request=body,
        )
        return status, raw

    async def _show(self, started: float, seconds: float) -> None:
        while True:
            await asyncio.sleep(_TOLD_EVERY_S)
            posted, got = (len(found) for found in self.account.latencies_s.values())
            line = f"{time.monotonic() - started:6.0f} of {seconds:.0f} s: {posted} payments, {got} queries"
            print(f"\r{line}, {len(self.account.failures)} failures", end="", file=sys.stderr, flush=True)

    async def come_to_rest(self, timeout_s: float) -> int:
        """How many of the last are still on their way after `timeout_s`; a payer's page is nobody's here."""
        deadline = time.monotonic() + timeout_s
        left = self.accepted[-2_000:]
        while left and time.monotonic() < deadline:
            still = []
            for checkout_id in left:
                due = time.monotonic()
                status, raw = await self._ask(
                    "GET", f"{self._payments}/{checkout_id}", checkout_id, due, (200,)
                )
                if status != 200 or orjson.loads(raw)["status"] in _OPEN:
                    still.append(checkout_id)
            left = still
            await asyncio.sleep(_AGAIN_S)
        return len(left)


def table(account: Account) -> str:
    lines = [f"{'ms, from when it was due':26}{'count':>9}{'p50':>9}{'p90':>9}{'p99':>9}{'max':>9}"]
    for method, seconds in account.latencies_s.items():
        found = percentiles(seconds)
        figures = (found.p50, found.p90, found.p99, found.max)
        lines.append(f"{method:26}{len(seconds):9}" + "".join(f"{value or 0:9.1f}" for value in figures))
    lines.append("answers: " + ", ".join(f"{count} {what}" for what, count in account.answers.most_common()))
    lines += [f"failure: {failure}" for failure in account.failures[:20]]
    lines.append(f"{len(account.failures)} failures, {account.refused} refused")
    return "\n".join(lines)


async def play(stack: StackJson, minutes: float, seed: int, path: Path) -> tuple[Account, int]:
    with ClientLog(path, stack.merchant, leak_scan(stack).in_text) as log:
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS_MAX),
            timeout=aiohttp.ClientTimeout(total=_CALL_TIMEOUT_S),
            headers={"Authorization": f"Bearer {stack.api_key}", "Content-Type": "application/json"},
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as session:
            day = Day(stack, session, log, seed)
            await day.run(minutes * 60)
            measured = Account(
                {name: list(found) for name, found in day.account.latencies_s.items()},
                Counter(day.account.answers),
                list(day.account.failures),
                day.account.refused,
            )
            return measured, await day.come_to_rest(120.0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make load-day", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data-dir", type=Path, help="the stack's; default: TOLLGATE_HOME, else ./.tollgate")
    parser.add_argument("--client-log", type=Path, help="keep what clients were told there")
    parser.add_argument("--may-refuse", action="store_true", help="the machine has too much else to do")
    asked = parser.parse_args()
    try:
        stack = running_stack(asked.data_dir)
    except TollgateError as error:
        print(f"make load-day: {error.message}", file=sys.stderr)
        return 2
    began_us = SystemClock().now_us()
    path = asked.client_log or Path(tempfile.mkdtemp(prefix="tollgate-load-")) / "told.jsonl"
    account, open_still = uvloop.run(play(stack, asked.minutes, asked.seed, path))
    print("\n" + table(account), flush=True)
    if open_still:
        print(f"{open_still} payments were still on their way two minutes after the last was sent.")
    code = verified([path], began_us, asked.data_dir)
    refused = account.refused and not asked.may_refuse
    return code or int(bool(account.failures or refused or open_still))


if __name__ == "__main__":
    sys.exit(main())
