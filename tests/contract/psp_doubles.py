"""Every PSP's adapter with a live double of it, and what the contract suite does with any of them.

A PSP joins by one entry in `DOUBLES`: how its double is started, which payment methods make it do what,
and how its own ledger is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import aiohttp

from processor.psp.interface import (
    Advanced,
    Approved,
    OperationKind,
    Order,
    Outcome,
    PspAdapter,
    PspRequest,
    Resolution,
)
from processor.psp.simulator import SimulatorPsp
from tests.fixtures.simulator import RunningSimulator
from tollgate.ids import PAYMENT_OPERATION, psp_idempotency_key
from tollgate.v1.payment_pb2 import Capture, Payment

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


DOUBLES: dict[str, Callable[[Path], PspDouble]] = {"simulator": SimulatorDouble}


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


async def resolved(
    adapter: PspAdapter, request: PspRequest, kind: OperationKind = OperationKind.PAYMENT, reference: str = ""
) -> Outcome:
    """An Unknown of the last step, resolved as the adapter declares."""
    resolution = adapter.plan.terms[adapter.plan.steps[kind][-1]].resolution
    if resolution is Resolution.LOOKUP:
        return await adapter.look_up(request, reference)
    assert resolution is Resolution.REPLAY
    return await adapter.send(request, TRACEPARENT)
