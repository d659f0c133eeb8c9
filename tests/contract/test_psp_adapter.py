"""The contract of a PSP adapter (processor/psp/interface.py) for payments, held by every PSP of `DOUBLES`."""

from __future__ import annotations

import asyncio

from processor.psp.interface import (
    Approved,
    Declined,
    OperationKind,
    PspAdapter,
    Retryable,
    Unknown,
)
from tests.contract.psp_doubles import (
    TRACEPARENT,
    PspDouble,
    charge_of,
    execution_of,
    payment,
    request_of,
    resolved,
)
from tollgate.v1.payment_pb2 import Capture


async def test_building_is_pure_and_the_key_is_the_one_given(adapter: PspAdapter, double: PspDouble) -> None:
    order = execution_of(payment("checkout-1", double.approves))
    step = adapter.plan.steps[order.kind][0]
    assert request_of(adapter, order, step) == request_of(adapter, order, step)
    assert adapter.build(order, step, "k" * 64).idempotency_key == "k" * 64


async def test_an_approved_charge_is_told_with_amount_and_currency(
    adapter: PspAdapter, double: PspDouble
) -> None:
    outcome = await adapter.send(
        await charge_of(adapter, payment("checkout-1", double.approves)), TRACEPARENT
    )
    assert isinstance(outcome, Approved)
    assert (outcome.amount, outcome.currency, outcome.captured) == (4200, "JPY", True)
    assert outcome.reference
    assert await double.effects("checkout-1") == 1


async def test_manual_capture_is_approved_and_not_captured(adapter: PspAdapter, double: PspDouble) -> None:
    request = await charge_of(adapter, payment("checkout-1", double.approves, Capture.CAPTURE_MANUAL))
    outcome = await adapter.send(request, TRACEPARENT)
    assert isinstance(outcome, Approved)
    assert not outcome.captured


async def test_the_same_bytes_again_come_to_the_same_outcome_and_one_effect(
    adapter: PspAdapter, double: PspDouble
) -> None:
    request = await charge_of(adapter, payment("checkout-1", double.approves))
    outcomes = await asyncio.gather(*(adapter.send(request, TRACEPARENT) for _ in range(5)))
    assert len(set(outcomes)) == 1
    assert isinstance(outcomes[0], Approved)
    assert await double.effects("checkout-1") == 1


async def test_a_decline_is_final_named_and_without_effect(adapter: PspAdapter, double: PspDouble) -> None:
    request = await charge_of(adapter, payment("checkout-1", double.declines))
    outcome = await adapter.send(request, TRACEPARENT)
    assert isinstance(outcome, Declined)
    assert outcome.code
    assert outcome.message
    assert await adapter.send(request, TRACEPARENT) == outcome
    assert await double.effects("checkout-1") == 0


async def test_a_documented_answer_without_effect_is_retryable(
    adapter: PspAdapter, double: PspDouble
) -> None:
    request = await charge_of(adapter, payment("checkout-1", double.unavailable_once))
    assert isinstance(await adapter.send(request, TRACEPARENT), Retryable)
    assert await double.effects("checkout-1") == 0
    assert isinstance(await adapter.send(request, TRACEPARENT), Approved)
    assert await double.effects("checkout-1") == 1


async def test_a_lost_answer_is_unknown_and_resolves_to_the_one_effect(
    adapter: PspAdapter, double: PspDouble
) -> None:
    request = await charge_of(adapter, payment("checkout-1", double.answers_never_at_first))
    assert isinstance(await adapter.send(request, TRACEPARENT), Unknown)
    assert isinstance(await resolved(adapter, request), Approved)
    assert await double.effects("checkout-1") == 1


async def test_a_reset_after_connect_is_unknown_and_resolves_to_the_one_effect(
    adapter: PspAdapter, double: PspDouble
) -> None:
    request = await charge_of(adapter, payment("checkout-1", double.resets_at_first))
    assert isinstance(await adapter.send(request, TRACEPARENT), Unknown)
    assert isinstance(await resolved(adapter, request), Approved)
    assert await double.effects("checkout-1") == 1


async def test_a_500_is_unknown_with_and_without_effect(adapter: PspAdapter, double: PspDouble) -> None:
    requests = [await charge_of(adapter, payment(f"checkout-{n}", double.approves)) for n in range(2)]
    await double.fail_with_500()
    for request in requests:
        assert isinstance(await adapter.send(request, TRACEPARENT), Unknown)
    await double.behave()
    for number, request in enumerate(requests):
        assert isinstance(await resolved(adapter, request), Approved)
        assert await double.effects(f"checkout-{number}") == 1


async def test_a_refused_connection_is_retryable(adapter: PspAdapter, double: PspDouble) -> None:
    request = await charge_of(adapter, payment("checkout-1", double.approves))
    await adapter.send(request, TRACEPARENT)  # a connection to keep alive, which dies with its server
    await double.vanish()
    outcomes = [await adapter.send(request, TRACEPARENT) for _ in range(3)]
    assert isinstance(outcomes[-1], Retryable)


def test_every_step_has_its_terms_and_leaves_room_for_resolution(adapter: PspAdapter) -> None:
    plan = adapter.plan
    names = [step for kind in OperationKind for step in plan.steps[kind]]
    assert sorted(names) == sorted(set(names)) == sorted(plan.terms)
    assert all(terms.key_retention_s > 2 * 60 * 60 for terms in plan.terms.values())
    assert plan.cancel in plan.steps[OperationKind.CANCEL]
    assert plan.authorization_window_s > 0
