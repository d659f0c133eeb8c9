"""Every PSP's adapter with a live double of it, and what the contract suite does with any of them.

A PSP joins by one entry in `DOUBLES`: how its double is started, which payment methods make it do what,
and how its own ledger is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import aiohttp

from processor.psp.adyen.adapter import AdyenPsp
from processor.psp.adyen.library import AdyenAccount
from processor.psp.adyen.notifications import read_adyen_notification
from processor.psp.interface import (
    Advanced,
    Approved,
    Awaited,
    OperationKind,
    Order,
    Outcome,
    PspAdapter,
    PspPlan,
    PspRequest,
    Resolution,
    Retryable,
)
from processor.psp.simulator import SimulatorPsp
from processor.psp.webhook import ReadWebhook, Report
from tests.contract.stripe_doubles import StripeWithKeys, StripeWithoutKeys
from tests.contract.template_suite_double import TemplateSuiteDouble
from tests.fixtures.adyen_double import API_KEY, HMAC_KEY, MERCHANT_ACCOUNT, AdyenDouble
from tests.fixtures.simulator import RunningSimulator
from tollgate.ids import PAYMENT_OPERATION, psp_idempotency_key
from tollgate.v1.payment_pb2 import Capture, Payment
from tollgate.webhooks.adyen import AdyenWebhooks
from tollgate.webhooks.interface import Verified, WebhookVerifier

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class PspDouble(Protocol):
    """A PSP to test against. The `pm_` names are what its double understands."""

    approves: str
    declines: str
    answers_never_at_first: str
    resets_at_first: str
    unavailable_once: str
    needs_action: str

    def adapter(self, timeout_s: float) -> PspAdapter: ...
    async def effects(self, checkout_id: str) -> int: ...
    async def moved(self, checkout_id: str, effect: str) -> int:
        """What its effects of this type (charge, authorization, capture, cancel, refund) add up to."""
        ...

    async def visit(self, url: str, *, approves: bool) -> None:
        """The payer opens the page of an ActionRequired and decides."""
        ...

    async def fail_with_500(self) -> None: ...
    async def behave(self) -> None: ...
    async def vanish(self) -> None:
        """From here on, nothing listens."""
        ...

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


class SimulatorDouble:
    approves = "pm_ok"
    declines = "pm_declined"
    answers_never_at_first = "pm_lost"
    resets_at_first = "pm_reset"
    unavailable_once = "pm_unavailable_1"
    needs_action = "pm_action"

    def __init__(self, folder: Path) -> None:
        self._simulator = RunningSimulator(folder)

    def adapter(self, timeout_s: float) -> PspAdapter:
        return SimulatorPsp(self._simulator.url, timeout_s)

    async def effects(self, checkout_id: str) -> int:
        ledger = await self._simulator.ledger()
        return sum(effect["checkout_id"] == checkout_id for effect in ledger["effects"])

    async def moved(self, checkout_id: str, effect: str) -> int:
        ledger = await self._simulator.ledger()
        return sum(
            found["amount"]
            for found in ledger["effects"]
            if (found["checkout_id"], found["type"]) == (checkout_id, effect)
        )

    async def visit(self, url: str, *, approves: bool) -> None:
        form = {"outcome": "approve" if approves else "decline"}
        async with aiohttp.ClientSession(raise_for_status=True) as payer:
            async with payer.get(url) as page:
                shown = await page.text()
                assert all(f'value="{choice}"' in shown for choice in ("approve", "decline"))
            await payer.post(url, data=form)

    async def fail_with_500(self) -> None:
        await self._simulator.set_scenario(error_rate=1.0)

    async def behave(self) -> None:
        await self._simulator.set_scenario(error_rate=0.0)

    async def vanish(self) -> None:
        await self._simulator.kill()

    async def start(self) -> None:
        await self._simulator.ready()

    async def stop(self) -> None:
        await self._simulator.stop()


class ToldByNotification:
    """An adapter together with its PSP's notifications, verified and read as a processor would have them: an
    order that is Awaited comes to what they tell of it.
    """

    def __init__(
        self,
        adapter: PspAdapter,
        notifications: Sequence[bytes],
        verifier: WebhookVerifier,
        read: ReadWebhook,
    ) -> None:
        self.name = adapter.name
        self._adapter = adapter
        self._notifications = notifications
        self._verifier = verifier
        self._read = read

    @property
    def plan(self) -> PspPlan:
        return self._adapter.plan

    def build(self, order: Order, step: str, idempotency_key: str) -> PspRequest:
        return self._adapter.build(order, step, idempotency_key)

    async def send(self, request: PspRequest, traceparent: str) -> Outcome:
        outcome = await self._adapter.send(request, traceparent)
        return self.told(request.idempotency_key) if isinstance(outcome, Awaited) else outcome

    async def look_up(self, request: PspRequest, reference: str) -> Outcome:
        return await self._adapter.look_up(request, reference)

    async def ask(self, payment: Payment) -> Outcome:
        return await self._adapter.ask(payment)

    async def close(self) -> None:
        await self._adapter.close()

    def told(self, request_key: str) -> Outcome:
        """The last word on the request of this key."""
        return [report.outcome for report in self._reports() if report.subject.request_key == request_key][-1]

    def _reports(self) -> Iterator[Report]:
        for body in self._notifications:
            verified = self._verifier.verify({}, body, now_s=0.0)
            assert isinstance(verified, Verified)
            for event in verified.events:
                reading = self._read(event.body)
                assert isinstance(reading, Report)
                yield reading


class AdyenSuiteDouble:
    approves = "approves"
    declines = "refuses"
    answers_never_at_first = "silent"
    resets_at_first = "resets"
    unavailable_once = "busy"
    needs_action = "redirects"

    def __init__(self, folder: Path) -> None:
        self._adyen = AdyenDouble()

    def adapter(self, timeout_s: float) -> PspAdapter:
        account = AdyenAccount(API_KEY, MERCHANT_ACCOUNT, "https://shop.example/back", url=self._adyen.url)
        return ToldByNotification(
            AdyenPsp(account, timeout_s),
            self._adyen.notifications,
            AdyenWebhooks([HMAC_KEY]),
            read_adyen_notification,
        )

    async def effects(self, checkout_id: str) -> int:
        return sum(effect.checkout_id == checkout_id for effect in self._adyen.effects)

    async def moved(self, checkout_id: str, effect: str) -> int:
        return self._adyen.total(checkout_id, effect)

    async def visit(self, url: str, *, approves: bool) -> None:
        form = {"outcome": "approve" if approves else "decline"}
        async with aiohttp.ClientSession(raise_for_status=True) as payer:
            await payer.post(url, data=form)

    async def fail_with_500(self) -> None:
        self._adyen.fails = True

    async def behave(self) -> None:
        self._adyen.fails = False

    async def vanish(self) -> None:
        await self._adyen.stop()

    async def start(self) -> None:
        await self._adyen.start()

    async def stop(self) -> None:
        await self._adyen.stop()


DOUBLES: dict[str, Callable[[Path], PspDouble]] = {
    "adyen": AdyenSuiteDouble,
    "localstripe": StripeWithoutKeys,
    "simulator": SimulatorDouble,
    "stripe": StripeWithKeys,
    "template": TemplateSuiteDouble,
}


def payment(
    checkout_id: str,
    payment_method: str,
    capture: Capture.ValueType = Capture.CAPTURE_AUTOMATIC,
    amount: int = 4200,
    currency: str = "JPY",
) -> Payment:
    return Payment(
        merchant="demo",
        checkout_id=checkout_id,
        amount=amount,
        currency=currency,
        capture=capture,
        payment_method=payment_method,
    )


def execution_of(wanted: Payment) -> Order:
    return Order(OperationKind.PAYMENT, wanted, PAYMENT_OPERATION, wanted.amount, "")


def operation_of(
    executed: Payment, kind: OperationKind, amount: int | None = None, operation_id: str = "op_1"
) -> Order:
    amount = executed.amount if amount is None else amount
    return Order(kind, executed, operation_id, amount, executed.psp_reference)


def request_of(adapter: PspAdapter, order: Order, step: str) -> PspRequest:
    ids = order.payment.merchant, order.payment.checkout_id, order.operation_id
    return adapter.build(order, step, psp_idempotency_key(*ids, step))


async def last_request(adapter: PspAdapter, order: Order) -> PspRequest:
    """The request of its last step; those before are done."""
    *before, last = adapter.plan.steps[order.kind]
    for step in before:
        outcome = await adapter.send(request_of(adapter, order, step), TRACEPARENT)
        assert isinstance(outcome, Advanced)
        order = replace(order, reference=outcome.reference)
    return request_of(adapter, order, last)


async def charge_of(adapter: PspAdapter, wanted: Payment) -> PspRequest:
    return await last_request(adapter, execution_of(wanted))


async def carried_out(adapter: PspAdapter, order: Order) -> Outcome:
    return await adapter.send(await last_request(adapter, order), TRACEPARENT)


async def executed(adapter: PspAdapter, wanted: Payment) -> Payment:
    """`wanted` as it is once the PSP has approved it."""
    outcome = await carried_out(adapter, execution_of(wanted))
    assert isinstance(outcome, Approved)
    after = Payment()
    after.CopyFrom(wanted)
    after.psp_reference = outcome.reference
    after.captured_amount = outcome.amount if outcome.captured else 0
    return after


async def standing(adapter: PspAdapter, payment: Payment) -> Outcome:
    """How the payment stands, as its PSP tells it: asked, or by itself."""
    if adapter.plan.can_be_asked:
        return await adapter.ask(payment)
    assert isinstance(adapter, ToldByNotification)
    ids = payment.merchant, payment.checkout_id, PAYMENT_OPERATION
    return adapter.told(psp_idempotency_key(*ids, adapter.plan.steps[OperationKind.PAYMENT][-1]))


async def resolved(
    adapter: PspAdapter, request: PspRequest, kind: OperationKind = OperationKind.PAYMENT, reference: str = ""
) -> Outcome:
    """An Unknown of the last step, resolved as the adapter declares."""
    resolution = adapter.plan.terms[adapter.plan.steps[kind][-1]].resolution
    if resolution is Resolution.LOOKUP:
        found = await adapter.look_up(request, reference)
        return await adapter.send(request, TRACEPARENT) if isinstance(found, Retryable) else found
    assert resolution is Resolution.REPLAY
    return await adapter.send(request, TRACEPARENT)
