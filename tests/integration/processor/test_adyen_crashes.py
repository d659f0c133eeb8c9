"""A worker that dies at any step of a call to Adyen, and another that takes over: in Adyen's own ledger there
is exactly one effect, whatever the step and the operation.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

import pytest

from processor.psp.adyen.adapter import AdyenPsp
from processor.psp.adyen.library import AdyenAccount
from processor.psp.interface import OperationKind, Outcome, PspRequest
from processor.storage.database import Pool
from processor.storage.operations import claim
from tests.fixtures.adyen_double import API_KEY, MERCHANT_ACCOUNT, AdyenDouble
from tests.fixtures.changes import NOW_US, accepted_payment, change_record
from tests.fixtures.psp_double import PspDouble
from tests.integration.processor.asking import CANCEL, CAPTURE, REFUND, accepted, drain
from tests.integration.processor.conftest import Bench, bench_on
from tollgate.clock import FakeClock
from tollgate.ids import PAYMENT_OPERATION
from tollgate.v1.payment_pb2 import Capture

PAYMENT = OperationKind.PAYMENT
EFFECT = {PAYMENT: "charge", CAPTURE: "capture", CANCEL: "cancel", REFUND: "refund"}
KINDS = pytest.mark.parametrize("kind", [PAYMENT, CAPTURE, CANCEL, REFUND])


class Killed(BaseException):
    """The process is gone: nothing after this point of the worker runs."""


@pytest.fixture
async def adyen() -> AsyncIterator[AdyenDouble]:
    double = AdyenDouble()
    await double.start()
    yield double
    await double.stop()


@pytest.fixture
async def psp(adyen: AdyenDouble) -> AsyncIterator[AdyenPsp]:
    account = AdyenAccount(API_KEY, MERCHANT_ACCOUNT, "https://shop.example/back", url=adyen.url)
    made = AdyenPsp(account, timeout_s=0.5)
    yield made
    await made.close()


@pytest.fixture
async def bench(pool: Pool, psp: AdyenPsp) -> AsyncIterator[Bench]:
    async with bench_on(pool, cast(PspDouble, psp), FakeClock(NOW_US + 5000)) as made:
        yield made


@pytest.fixture
async def successor(pool: Pool, psp: AdyenPsp, bench: Bench) -> AsyncIterator[Bench]:
    """Another processor on the same database, with the same PSP."""
    async with bench_on(pool, bench.psp, bench.clock) as made:
        yield made


async def due(bench: Bench, kind: OperationKind, behaviour: str = "approves") -> str:
    """An operation of this kind that nobody has claimed yet; its id."""
    by_hand = kind in (CAPTURE, CANCEL)
    payment = accepted_payment(capture=Capture.CAPTURE_MANUAL if by_hand else Capture.CAPTURE_AUTOMATIC)
    payment.psp, payment.payment_method = "adyen", behaviour
    await bench.take_in(change_record(payment))
    if kind is PAYMENT:
        return PAYMENT_OPERATION
    await drain(bench)
    return await accepted(bench, kind)


async def killed_in_the_call(bench: Bench, send: Callable[[PspRequest, str], Awaitable[Outcome]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.psp, "send", send)
        with pytest.raises(Killed):
            await bench.run_due()


async def finish(successor: Bench, operation_id: str) -> None:
    """The lease of the dead ends; its successor goes on until nothing is due."""
    await successor.pool.execute(
        "UPDATE operations SET claimable_at = now() WHERE id = $1 AND claimable_at IS NOT NULL", operation_id
    )
    await drain(successor)


async def assert_one_effect(bench: Bench, adyen: AdyenDouble, kind: OperationKind, operation_id: str) -> None:
    """Every call about it was the same bytes under the same key."""
    assert adyen.total("checkout-0001", EFFECT[kind]) == 1234
    keys = [effect.key for effect in adyen.effects]
    assert len(set(keys)) == len(keys) == (1 if kind is PAYMENT else 2)
    calls = {(call.path, call.body) for call in adyen.calls if call.key == keys[-1]}
    assert len(calls) == 1
    operation = await bench.operation(operation_id=operation_id)
    assert operation["parked_reason"] is None
    last = await bench.pool.fetchval(
        "SELECT outcome FROM attempts WHERE operation_id = $1 ORDER BY number DESC LIMIT 1", operation_id
    )
    if kind is PAYMENT:
        assert (operation["status"], last) == ("succeeded", "approved")
    else:
        assert (operation["status"], last) == ("pending", "awaited")
        assert await bench.run_due() == 0


@KINDS
async def test_killed_after_the_claim(
    bench: Bench, successor: Bench, adyen: AdyenDouble, kind: OperationKind
) -> None:
    operation_id = await due(bench, kind)
    assert await claim(bench.pool, 10, 15.0, bench.clock.now_us(), 0.0)
    assert await successor.run_due() == 0
    await finish(successor, operation_id)
    await assert_one_effect(bench, adyen, kind, operation_id)


@KINDS
async def test_killed_after_the_attempt_is_stored_and_before_the_call(
    bench: Bench, successor: Bench, adyen: AdyenDouble, kind: OperationKind
) -> None:
    async def killed(request: PspRequest, traceparent: str) -> Outcome:
        raise Killed

    operation_id = await due(bench, kind)
    await killed_in_the_call(bench, killed)
    await finish(successor, operation_id)
    await assert_one_effect(bench, adyen, kind, operation_id)


@KINDS
async def test_killed_after_adyen_executed_and_before_the_answer_is_stored(
    bench: Bench, successor: Bench, adyen: AdyenDouble, kind: OperationKind
) -> None:
    send = bench.psp.send

    async def executed_then_killed(request: PspRequest, traceparent: str) -> Outcome:
        await send(request, traceparent)
        raise Killed

    operation_id = await due(bench, kind)
    await killed_in_the_call(bench, executed_then_killed)
    effects = len(adyen.effects)
    await finish(successor, operation_id)
    assert len(adyen.effects) == effects
    await assert_one_effect(bench, adyen, kind, operation_id)


@KINDS
async def test_a_500_before_and_one_after_the_effect(
    bench: Bench, adyen: AdyenDouble, kind: OperationKind
) -> None:
    operation_id = await due(bench, kind)
    adyen.fails = True
    for _ in range(2):  # the first without, the second with it
        assert await bench.run_due() == 1
    adyen.fails = False
    await drain(bench)
    await assert_one_effect(bench, adyen, kind, operation_id)


@pytest.mark.parametrize("behaviour", ["silent", "resets", "busy"])
async def test_a_payment_whose_answer_is_lost_or_put_off_is_made_once(
    bench: Bench, adyen: AdyenDouble, behaviour: str
) -> None:
    operation_id = await due(bench, PAYMENT, behaviour)
    assert await bench.run_due() == 1
    await finish(bench, operation_id)
    await assert_one_effect(bench, adyen, PAYMENT, operation_id)


async def test_a_payment_that_is_answered_with_500_for_a_day_is_a_persons_and_not_sent_again(
    bench: Bench, adyen: AdyenDouble
) -> None:
    """As Adyen does where our settings there are wrong: the key would be known for a month."""
    operation_id = await due(bench, PAYMENT)
    adyen.fails = True
    assert await bench.run_due() == 1
    bench.clock.advance(24 * 3600.0 - 60.0)
    await bench.let_leases_end()
    assert await bench.run_due() == 1
    assert len(adyen.calls) == 2
    adyen.fails = False
    bench.clock.advance(60.0)
    await finish(bench, operation_id)
    assert "nothing certain for too long" in (await bench.operation())["parked_reason"]
    assert len(adyen.calls) == 2
