"""Three real processors, two calls a second for all of them together; the PSP's own ledger is the witness.

`make budget` pays sixty, as many as BUDGET_PAYMENTS says.
"""

from __future__ import annotations

import os
import re
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest

from processor.changes import parse
from processor.storage.database import Pool
from processor.storage.intake import Acceptance, ingest
from tests.fixtures.changes import accepted_payment, change_record
from tests.fixtures.free_port import free_port
from tests.fixtures.processor_process import RunningProcessor, processor_on
from tests.fixtures.simulator import RunningSimulator
from tollgate.clock import SystemClock

PAYMENTS = int(os.environ.get("BUDGET_PAYMENTS", "6"))
MERCHANTS = ("aaa", "mmm", "zzz")
A_SECOND = timedelta(seconds=1)


def accepted(number: int) -> Acceptance:
    """A third succeeds at once; each of the others is refused once or twice first, without effect."""
    now_us = SystemClock().now_us()
    payment = accepted_payment(
        f"{uuid4().hex}-{number:04d}", merchant=MERCHANTS[number % len(MERCHANTS)], now_us=now_us
    )
    payment.payment_method = ("pm_ok", "pm_unavailable_1", "pm_unavailable_2")[number // len(MERCHANTS) % 3]
    change = parse(change_record(payment), now_us)
    assert isinstance(change, Acceptance)
    return change


def calls_of(number: int) -> int:
    return 1 + number // len(MERCHANTS) % 3


async def slots_used(processor: RunningProcessor) -> int:
    async with aiohttp.ClientSession() as session, session.get(f"http://{processor.ops}/metrics") as answer:
        metrics = await answer.text()
    found = re.search(
        r'^tollgate_psp_budget_slots_total\{.*result="used"\} ([0-9.]+)$', metrics, re.MULTILINE
    )
    return int(float(found[1])) if found else 0


@pytest.mark.fault
@pytest.mark.timeout(60 + 3 * PAYMENTS)
async def test_no_second_has_more_calls_than_the_budget_in_the_psp_s_own_ledger(
    tmp_path: Path, migrated_dsn: str, pool: Pool, simulator: RunningSimulator
) -> None:
    """Kafka is not there: what is in Postgres is executed all the same, and no other test's payments are."""
    await ingest(pool, [accepted(number) for number in range(PAYMENTS)], [], SystemClock().now_us())
    nowhere = f"127.0.0.1:{free_port()}"
    processors: list[RunningProcessor] = []
    async with AsyncExitStack() as stack:
        for name in ("first", "second", "third"):
            folder = tmp_path / name
            folder.mkdir()
            limit = {"TOLLGATE_PSP__SIMULATOR__MAX_PER_SECOND": "2"}
            processors.append(
                await stack.enter_async_context(
                    processor_on(folder, migrated_dsn, nowhere, simulator.url, **limit)
                )
            )
        await simulator.until(lambda ledger: len(ledger["effects"]) >= PAYMENTS, timeout_s=30 + 2 * PAYMENTS)
        used = [await slots_used(processor) for processor in processors]
        ledger = await simulator.ledger()
    assert len({effect["checkout_id"] for effect in ledger["effects"]}) == len(ledger["effects"]) == PAYMENTS
    calls = sorted(datetime.fromisoformat(call["at"]) for call in ledger["calls"])
    assert len(calls) == sum(calls_of(number) for number in range(PAYMENTS))
    for first, third in zip(calls, calls[2:], strict=False):
        assert third - first >= A_SECOND
    assert sum(used) == len(calls)
    if PAYMENTS >= 30:  # by then the last to start has had its turn
        assert min(used) > 0
