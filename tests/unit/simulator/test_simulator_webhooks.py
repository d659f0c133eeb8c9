"""The simulator's webhooks, from a real process: what they tell, how often, and what a kill -9 leaves."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from processor.psp.interface import ActionRequired, Approved, Awaited, Declined, OperationKind
from processor.psp.simulator import SimulatorPsp
from processor.psp.simulator_webhook import read_simulator_webhook
from processor.psp.webhook import Report, Subject
from tests.contract.psp_doubles import TRACEPARENT, execution_of, payment, request_of
from tests.fixtures.simulator import RunningSimulator
from tollgate.v1.payment_pb2 import Capture, Payment
from tollgate.webhooks.interface import Verified
from tollgate.webhooks.simulator import SimulatorWebhooks

SECRET = "whsec_" + base64.b64encode(b"a secret of the simulator").decode()
VERIFIER = SimulatorWebhooks([SECRET])


class Listener:
    """Takes webhooks, after refusing the first `refusals` of them."""

    def __init__(self) -> None:
        self.refusals = 0
        self.refused = 0
        self.taken: list[tuple[str, bytes]] = []
        self._came = asyncio.Condition()
        self._runner: web.ServerRunner | None = None
        self.url = ""

    async def start(self) -> None:
        self._runner = web.ServerRunner(web.Server(self._receive))
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def until(self, count: int) -> list[tuple[str, bytes]]:
        async with asyncio.timeout(20), self._came:
            await self._came.wait_for(lambda: len(self.taken) >= count)
        return self.taken

    async def _receive(self, request: web.BaseRequest) -> web.Response:
        body = await request.read()
        if self.refused < self.refusals:
            self.refused += 1
            return web.Response(status=503)
        headers = {name.lower(): value for name, value in request.headers.items()}
        verified = VERIFIER.verify(headers, body, time.time())
        assert isinstance(verified, Verified)
        async with self._came:
            self.taken.append(verified.events[0])
            self._came.notify_all()
        return web.Response(status=200)


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    made = Listener()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def telling(tmp_path: Path, listener: Listener) -> AsyncIterator[RunningSimulator]:
    settings = {"WEBHOOK_URL": listener.url, "WEBHOOK_SECRET": SECRET, "LATE_S": "0.2"}
    running = RunningSimulator(tmp_path, **settings)
    try:
        await running.ready()
        yield running
    finally:
        await running.stop()


async def charged(simulator: RunningSimulator, wanted: Payment) -> object:
    adapter = SimulatorPsp(simulator.url, 5.0)
    try:
        return await adapter.send(request_of(adapter, execution_of(wanted), "charge"), TRACEPARENT)
    finally:
        await adapter.close()


async def test_a_late_charge_is_answered_processing_and_told_once_it_stands(
    telling: RunningSimulator, listener: Listener
) -> None:
    listener.refusals = 2
    late = payment("checkout-1", "pm_late_webhook")
    outcome = await charged(telling, late)
    assert isinstance(outcome, Awaited)
    assert (await telling.ledger())["effects"] == []
    assert await charged(telling, late) == outcome, "a repeat is answered as the first was"
    ((event_id, body),) = await listener.until(1)
    assert listener.refused == 2
    assert json.loads(body)["id"] == event_id
    report = read_simulator_webhook(body)
    approved = Approved(outcome.reference, 4200, "JPY", captured=True)
    assert report == Report(Subject(payment_key="demo/checkout-1"), OperationKind.PAYMENT, approved)
    (effect,) = (await telling.ledger())["effects"]
    assert (effect["type"], effect["checkout_id"], effect["amount"]) == ("charge", "checkout-1", 4200)
    assert await charged(telling, late) == outcome


async def test_what_no_answer_told_is_told_and_nothing_else(
    telling: RunningSimulator, listener: Listener
) -> None:
    for number, method in enumerate(("pm_ok", "pm_declined")):
        await charged(telling, payment(f"checkout-{number}", method))
    await charged(telling, payment("late", "pm_late_webhook", Capture.CAPTURE_MANUAL))
    async with aiohttp.ClientSession(raise_for_status=True) as payer:
        for outcome in ("approve", "decline"):
            asked = await charged(telling, payment(outcome, "pm_action"))
            assert isinstance(asked, ActionRequired)
            for _ in range(2):
                await payer.post(asked.url, data={"outcome": outcome})
    told = {}
    for _, body in await listener.until(3):
        report = read_simulator_webhook(body)
        assert isinstance(report, Report)
        told[report.subject.payment_key] = report.outcome
    assert told.keys() == {"demo/late", "demo/approve", "demo/decline"}
    late, approved, declined = (told[f"demo/{name}"] for name in ("late", "approve", "decline"))
    assert isinstance(late, Approved)
    assert isinstance(approved, Approved)
    assert (late.captured, approved.captured) == (False, True)
    assert isinstance(declined, Declined)


async def test_a_kill_loses_neither_an_outcome_to_come_nor_a_webhook(
    telling: RunningSimulator, listener: Listener
) -> None:
    listener.refusals = 10_000
    await charged(telling, payment("checkout-1", "pm_late_webhook"))
    await telling.kill()  # before its outcome
    await telling.start_again()
    await telling.until(lambda ledger: len(ledger["effects"]) == 1)
    await telling.kill()  # after it, and nobody was told
    await telling.start_again()
    listener.refusals = 0
    ((_, body),) = await listener.until(1)
    assert isinstance(read_simulator_webhook(body), Report)
    assert len((await telling.ledger())["effects"]) == 1
