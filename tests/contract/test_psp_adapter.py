"""The contract of a PSP adapter (processor/psp/interface.py), held by every PSP against a live double of it.

A PSP joins by one entry in `DOUBLES`: how its double is started, which payment methods make it do what,
and how its own ledger is counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol

import pytest

from processor.psp.interface import (
    Approved,
    Declined,
    Outcome,
    PspAdapter,
    PspRequest,
    Resolution,
    Retryable,
    Unknown,
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

    def adapter(self, timeout_s: float) -> PspAdapter: ...
    async def effects(self, checkout_id: str) -> int: ...
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

    def __init__(self, folder: Path) -> None:
        self._simulator = RunningSimulator(folder)

    def adapter(self, timeout_s: float) -> PspAdapter:
        return SimulatorPsp(self._simulator.url, timeout_s)

    async def effects(self, checkout_id: str) -> int:
        ledger = await self._simulator.ledger()
        return sum(effect["checkout_id"] == checkout_id for effect in ledger["effects"])

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


@pytest.fixture(params=DOUBLES)
async def double(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[PspDouble]:
    made = DOUBLES[request.param](tmp_path)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


@pytest.fixture
async def adapter(double: PspDouble) -> AsyncIterator[PspAdapter]:
    made = double.adapter(timeout_s=1.0)
    yield made
    await made.close()


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


def charge_of(adapter: PspAdapter, wanted: Payment) -> PspRequest:
    key = psp_idempotency_key(wanted.merchant, wanted.checkout_id, PAYMENT_OPERATION, "charge")
    return adapter.build_charge(wanted, key)


async def resolved(adapter: PspAdapter, request: PspRequest) -> Outcome:
    """An Unknown resolved as the adapter declares."""
    if adapter.resolution is Resolution.LOOKUP:
        return await adapter.look_up(request, "")
    assert adapter.resolution is Resolution.REPLAY
    return await adapter.send(request, TRACEPARENT)


async def test_building_is_pure_and_the_key_is_the_one_given(adapter: PspAdapter, double: PspDouble) -> None:
    wanted = payment("checkout-1", double.approves)
    assert charge_of(adapter, wanted) == charge_of(adapter, wanted)
    assert adapter.build_charge(wanted, "k" * 64).idempotency_key == "k" * 64


async def test_an_approved_charge_is_told_with_amount_and_currency(
    adapter: PspAdapter, double: PspDouble
) -> None:
    outcome = await adapter.send(charge_of(adapter, payment("checkout-1", double.approves)), TRACEPARENT)
    assert isinstance(outcome, Approved)
    assert (outcome.amount, outcome.currency, outcome.captured) == (4200, "JPY", True)
    assert outcome.reference
    assert await double.effects("checkout-1") == 1


async def test_manual_capture_is_approved_and_not_captured(adapter: PspAdapter, double: PspDouble) -> None:
    request = charge_of(adapter, payment("checkout-1", double.approves, Capture.CAPTURE_MANUAL))
    outcome = await adapter.send(request, TRACEPARENT)
    assert isinstance(outcome, Approved)
    assert not outcome.captured


async def test_the_same_bytes_again_come_to_the_same_outcome_and_one_effect(
    adapter: PspAdapter, double: PspDouble
) -> None:
    request = charge_of(adapter, payment("checkout-1", double.approves))
    outcomes = await asyncio.gather(*(adapter.send(request, TRACEPARENT) for _ in range(5)))
    assert len(set(outcomes)) == 1
    assert isinstance(outcomes[0], Approved)
    assert await double.effects("checkout-1") == 1


async def test_a_decline_is_final_named_and_without_effect(adapter: PspAdapter, double: PspDouble) -> None:
    request = charge_of(adapter, payment("checkout-1", double.declines))
    outcome = await adapter.send(request, TRACEPARENT)
    assert isinstance(outcome, Declined)
    assert outcome.code
    assert outcome.message
    assert await adapter.send(request, TRACEPARENT) == outcome
    assert await double.effects("checkout-1") == 0


async def test_a_documented_answer_without_effect_is_retryable(
    adapter: PspAdapter, double: PspDouble
) -> None:
    request = charge_of(adapter, payment("checkout-1", double.unavailable_once))
    assert isinstance(await adapter.send(request, TRACEPARENT), Retryable)
    assert await double.effects("checkout-1") == 0
    assert isinstance(await adapter.send(request, TRACEPARENT), Approved)
    assert await double.effects("checkout-1") == 1


async def test_a_lost_answer_is_unknown_and_resolves_to_the_one_effect(
    adapter: PspAdapter, double: PspDouble
) -> None:
    request = charge_of(adapter, payment("checkout-1", double.answers_never_at_first))
    assert isinstance(await adapter.send(request, TRACEPARENT), Unknown)
    assert isinstance(await resolved(adapter, request), Approved)
    assert await double.effects("checkout-1") == 1


async def test_a_reset_after_connect_is_unknown_and_resolves_to_the_one_effect(
    adapter: PspAdapter, double: PspDouble
) -> None:
    request = charge_of(adapter, payment("checkout-1", double.resets_at_first))
    assert isinstance(await adapter.send(request, TRACEPARENT), Unknown)
    assert isinstance(await resolved(adapter, request), Approved)
    assert await double.effects("checkout-1") == 1


async def test_a_500_is_unknown_with_and_without_effect(adapter: PspAdapter, double: PspDouble) -> None:
    requests = [charge_of(adapter, payment(f"checkout-{n}", double.approves)) for n in range(2)]
    await double.fail_with_500()
    for request in requests:
        assert isinstance(await adapter.send(request, TRACEPARENT), Unknown)
    await double.behave()
    for number, request in enumerate(requests):
        assert isinstance(await resolved(adapter, request), Approved)
        assert await double.effects(f"checkout-{number}") == 1


async def test_a_refused_connection_is_retryable(adapter: PspAdapter, double: PspDouble) -> None:
    request = charge_of(adapter, payment("checkout-1", double.approves))
    await adapter.send(request, TRACEPARENT)  # a connection to keep alive, which dies with its server
    await double.vanish()
    outcomes = [await adapter.send(request, TRACEPARENT) for _ in range(3)]
    assert isinstance(outcomes[-1], Retryable)


async def test_the_key_retention_leaves_room_for_resolution(adapter: PspAdapter) -> None:
    assert adapter.key_retention_s > 2 * 60 * 60
