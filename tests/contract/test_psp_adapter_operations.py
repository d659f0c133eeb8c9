"""The contract of a PSP adapter for captures, cancels and refunds, held by every PSP of `DOUBLES`."""

from __future__ import annotations

import asyncio

import pytest

from processor.psp.interface import (
    ActionRequired,
    Approved,
    Declined,
    Done,
    OperationKind,
    PspAdapter,
    Retryable,
    Unknown,
)
from tests.contract.psp_doubles import (
    TRACEPARENT,
    PspDouble,
    carried_out,
    executed,
    execution_of,
    last_request,
    operation_of,
    payment,
    resolved,
    standing,
)
from tollgate.v1.payment_pb2 import Capture, Payment

CAPTURE, CANCEL, REFUND = OperationKind.CAPTURE, OperationKind.CANCEL, OperationKind.REFUND


async def authorized(adapter: PspAdapter, double: PspDouble) -> Payment:
    return await executed(adapter, payment("checkout-1", double.approves, Capture.CAPTURE_MANUAL))


async def charged(adapter: PspAdapter, double: PspDouble) -> Payment:
    return await executed(adapter, payment("checkout-1", double.approves))


@pytest.mark.parametrize("amount", [4200, 1000])
async def test_a_capture_is_done_once_with_the_amount_that_was_ordered(
    adapter: PspAdapter, double: PspDouble, amount: int
) -> None:
    request = await last_request(adapter, operation_of(await authorized(adapter, double), CAPTURE, amount))
    outcomes = await asyncio.gather(*(adapter.send(request, TRACEPARENT) for _ in range(3)))
    assert len(set(outcomes)) == 1
    assert isinstance(outcomes[0], Done)
    assert (outcomes[0].amount, outcomes[0].currency) == (amount, "JPY")
    assert await double.moved("checkout-1", "capture") == amount


async def test_a_capture_of_what_is_captured_is_declined_without_effect(
    adapter: PspAdapter, double: PspDouble
) -> None:
    order = operation_of(await authorized(adapter, double), CAPTURE)
    await carried_out(adapter, order)
    again = await carried_out(adapter, operation_of(order.payment, CAPTURE, operation_id="op_2"))
    assert isinstance(again, Declined)
    assert again.code
    assert await double.moved("checkout-1", "capture") == 4200


async def test_a_cancel_voids_an_authorization_and_nothing_can_be_captured_after_it(
    adapter: PspAdapter, double: PspDouble
) -> None:
    held = await authorized(adapter, double)
    assert isinstance(await carried_out(adapter, operation_of(held, CANCEL)), Done)
    capture = operation_of(held, CAPTURE, operation_id="op_2")
    assert isinstance(await carried_out(adapter, capture), Declined)
    assert await double.moved("checkout-1", "cancel") == 4200
    assert await double.moved("checkout-1", "capture") == 0


async def test_a_cancel_of_what_is_captured_is_declined_and_refunds_nothing(
    adapter: PspAdapter, double: PspDouble
) -> None:
    outcome = await carried_out(adapter, operation_of(await charged(adapter, double), CANCEL))
    assert isinstance(outcome, Declined)
    assert await double.moved("checkout-1", "refund") == 0


async def test_several_refunds_stand_up_to_what_was_captured_and_no_further(
    adapter: PspAdapter, double: PspDouble
) -> None:
    paid = await charged(adapter, double)
    for operation_id, amount in (("op_1", 4000), ("op_2", 200)):
        outcome = await carried_out(adapter, operation_of(paid, REFUND, amount, operation_id))
        assert isinstance(outcome, Done)
        assert outcome.amount == amount
    assert isinstance(await carried_out(adapter, operation_of(paid, REFUND, 1, "op_3")), Declined)
    assert await double.moved("checkout-1", "refund") == 4200


@pytest.mark.parametrize("kind", [CAPTURE, CANCEL, REFUND])
async def test_an_operation_in_doubt_resolves_to_its_one_effect(
    adapter: PspAdapter, double: PspDouble, kind: OperationKind
) -> None:
    paid = await (charged if kind is REFUND else authorized)(adapter, double)
    orders = [operation_of(paid, kind, 1000 if kind is REFUND else None)]
    if kind is REFUND:
        orders.append(operation_of(paid, kind, 1000, "op_2"))  # of two 500s one had its effect
    requests = [await last_request(adapter, order) for order in orders]
    await double.fail_with_500()
    for request in requests:
        assert isinstance(await adapter.send(request, TRACEPARENT), Unknown)
    await double.behave()
    for request in requests:
        assert isinstance(await resolved(adapter, request, kind, paid.psp_reference), Done)
    assert await double.moved("checkout-1", kind.value) == (2000 if kind is REFUND else 4200)


async def test_an_operation_that_reaches_nobody_is_retryable(adapter: PspAdapter, double: PspDouble) -> None:
    request = await last_request(adapter, operation_of(await charged(adapter, double), REFUND))
    await double.vanish()
    outcomes = [await adapter.send(request, TRACEPARENT) for _ in range(3)]
    assert isinstance(outcomes[-1], Retryable)


async def test_a_payment_is_asked_about_as_it_stands(adapter: PspAdapter, double: PspDouble) -> None:
    held = await authorized(adapter, double)
    assert await standing(adapter, held) == Approved(held.psp_reference, 4200, "JPY", captured=False)
    if not adapter.plan.can_be_asked:
        assert isinstance(await adapter.ask(held), Unknown)
        return
    await carried_out(adapter, operation_of(held, CANCEL))
    assert isinstance(await adapter.ask(held), Declined)


async def test_a_question_that_reaches_nobody_is_unknown(adapter: PspAdapter, double: PspDouble) -> None:
    paid = await charged(adapter, double)
    assert isinstance(await standing(adapter, paid), Approved)
    await double.vanish()
    assert isinstance(await adapter.ask(paid), Unknown)


async def awaiting_its_payer(
    adapter: PspAdapter, double: PspDouble, capture: Capture.ValueType = Capture.CAPTURE_AUTOMATIC
) -> tuple[Payment, str]:
    """The payment as it is now, and the payer's page."""
    wanted = payment("checkout-1", double.needs_action, capture)
    outcome = await carried_out(adapter, execution_of(wanted))
    assert isinstance(outcome, ActionRequired)
    wanted.psp_reference = outcome.reference
    if adapter.plan.can_be_asked:
        assert await adapter.ask(wanted) == outcome
    assert await double.effects("checkout-1") == 0
    return wanted, outcome.url


@pytest.mark.parametrize("capture", [Capture.CAPTURE_AUTOMATIC, Capture.CAPTURE_MANUAL])
async def test_a_payer_who_confirms_has_paid_once(
    adapter: PspAdapter, double: PspDouble, capture: Capture.ValueType
) -> None:
    waiting, url = await awaiting_its_payer(adapter, double, capture)
    await double.visit(url, approves=True)
    automatic = capture == Capture.CAPTURE_AUTOMATIC
    expected = Approved(waiting.psp_reference, 4200, "JPY", captured=automatic)
    assert await standing(adapter, waiting) == expected
    assert await double.moved("checkout-1", "charge" if automatic else "authorization") == 4200


async def test_a_payer_who_declines_has_not_paid(adapter: PspAdapter, double: PspDouble) -> None:
    waiting, url = await awaiting_its_payer(adapter, double)
    await double.visit(url, approves=False)
    outcome = await standing(adapter, waiting)
    assert isinstance(outcome, Declined)
    assert outcome.code
    assert await double.effects("checkout-1") == 0


async def test_what_waits_for_its_payer_can_be_ended_and_then_no_payer_can_pay(
    adapter: PspAdapter, double: PspDouble
) -> None:
    waiting, _url = await awaiting_its_payer(adapter, double)
    assert isinstance(await carried_out(adapter, operation_of(waiting, CANCEL)), Done)
    if adapter.plan.can_be_asked:
        assert isinstance(await adapter.ask(waiting), Declined)
    assert await double.moved("checkout-1", "charge") == 0
