"""Processors that die around every call to a Stripe without keys: one PaymentIntent, every effect once."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random
from typing import cast

import pytest

from processor.psp.interface import Order, Outcome, PspRequest
from processor.psp.stripe.adapter import StripePsp
from processor.storage.database import Pool
from tests.fixtures.changes import NOW_US, accepted_payment, change_record
from tests.fixtures.localstripe import API_KEY, Localstripe, shared_localstripe
from tests.fixtures.psp_double import PspDouble
from tests.fixtures.stripe_front import APPROVES, NEEDS_ACTION, StripeFront, effects_of, intents_of
from tests.integration.processor.asking import CANCEL, CAPTURE, REFUND, accepted, standing
from tests.integration.processor.conftest import Bench, bench_on
from tollgate.clock import FakeClock
from tollgate.v1.payment_pb2 import Capture, Payment

NAME = "acme/checkout-0001"
SEEDS = int(os.environ.get("STRIPE_CRASH_SEEDS", "1"))
DIES = 0.3  # before a call, and after it
CALLS = 5  # of a payment that is authorized, captured and refunded twice; the last is as the one before


class Killed(BaseException):
    """The process is gone: nothing after this point of the worker runs."""


class Mortal:
    """An adapter whose process dies before or after those of its calls that `dies` says, counted from 1."""

    name = "stripe"
    plan = StripePsp.plan

    def __init__(self, adapter: StripePsp, dies: Callable[[int, bool], bool]) -> None:
        self._adapter = adapter
        self._dies = dies
        self.deaths = 0
        self.calls = 0

    def build(self, order: Order, step: str, idempotency_key: str) -> PspRequest:
        return self._adapter.build(order, step, idempotency_key)

    async def send(self, request: PspRequest, traceparent: str) -> Outcome:
        return await self._call(lambda: self._adapter.send(request, traceparent))

    async def look_up(self, request: PspRequest, reference: str) -> Outcome:
        return await self._call(lambda: self._adapter.look_up(request, reference))

    async def ask(self, payment: Payment) -> Outcome:
        return await self._adapter.ask(payment)

    async def _call(self, way: Callable[[], Awaitable[Outcome]]) -> Outcome:
        self.calls += 1
        number = self.calls
        before = self._dies(number, False)
        outcome = None if before else await way()
        if outcome is None or self._dies(number, True):
            self.deaths += 1
            raise Killed
        return outcome


@pytest.fixture
async def behind() -> AsyncIterator[Localstripe]:
    localstripe = Localstripe(shared_localstripe())
    await localstripe.clear()
    yield localstripe
    await localstripe.clear()


@pytest.fixture
async def stripe(behind: Localstripe) -> AsyncIterator[StripePsp]:
    front = StripeFront(behind)
    await front.start()
    made = StripePsp(API_KEY, front.url, 5.0, return_url="https://shop.example/back")
    yield made
    await made.close()
    await front.stop()


async def live_through(bench: Bench) -> None:
    """Until nothing is due, whoever dies meanwhile; what a dead one held is taken up after its lease."""
    held = "SELECT EXISTS (SELECT FROM operations WHERE claimable_at < now() + interval '1 minute')"
    while True:
        try:
            if await bench.run_due():
                continue
        except Killed:
            pass  # what it called for others at the same time may still come home, too late
        if not await bench.pool.fetchval(held):
            return
        await bench.let_leases_end()


def payment_at_stripe(payment_method: str, capture: Capture.ValueType) -> Payment:
    wanted = accepted_payment(capture=capture)
    wanted.psp = "stripe"
    wanted.payment_method = payment_method
    return wanted


async def authorize_capture_and_refund(bench: Bench) -> None:
    await bench.take_in(change_record(payment_at_stripe(APPROVES, Capture.CAPTURE_MANUAL)))
    await live_through(bench)
    await accepted(bench, CAPTURE, 1000)
    await live_through(bench)
    for amount in (400, 600):
        await accepted(bench, REFUND, amount)
        await live_through(bench)


async def assert_every_effect_stands_once(bench: Bench, behind: Localstripe) -> None:
    assert await standing(bench) == ("refunded", 1000, 1000)
    assert len(await intents_of(behind, NAME)) == 1
    effects = [("authorization", 1234), ("capture", 1000), ("refund", 400), ("refund", 600)]
    assert sorted(await effects_of(behind, NAME)) == effects
    parked = "SELECT count(*) FROM operations WHERE parked_reason <> ''"
    assert await bench.pool.fetchval(parked) == 0


@pytest.mark.parametrize("number", range(1, CALLS))
async def test_a_death_after_any_call_leaves_one_of_each_effect(
    pool: Pool, stripe: StripePsp, behind: Localstripe, number: int
) -> None:
    mortal = Mortal(stripe, lambda call, made: made and call == number)
    async with bench_on(pool, cast(PspDouble, mortal), FakeClock(NOW_US + 5000)) as bench:
        await authorize_capture_and_refund(bench)
        await assert_every_effect_stands_once(bench, behind)
    assert mortal.deaths == 1


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_deaths_around_calls_and_look_ups_at_random_leave_one_of_each_effect(
    pool: Pool, stripe: StripePsp, behind: Localstripe, seed: int
) -> None:
    """Every second call dies, before it is made or after, and so does what looks for it."""
    random = Random(seed)
    mortal = Mortal(stripe, lambda call, made: (made and call == 1) or random.random() < DIES)
    clock = FakeClock(NOW_US + 5000)
    async with bench_on(pool, cast(PspDouble, mortal), clock, sends_max=50) as bench:
        await authorize_capture_and_refund(bench)
        await assert_every_effect_stands_once(bench, behind)
    assert mortal.deaths >= 1


async def test_a_death_after_the_end_of_what_waits_for_its_payer_leaves_nothing_to_pay(
    pool: Pool, stripe: StripePsp, behind: Localstripe
) -> None:
    mortal = Mortal(stripe, lambda call, made: made and call == 3)
    async with bench_on(pool, cast(PspDouble, mortal), FakeClock(NOW_US + 5000)) as bench:
        waiting = payment_at_stripe(NEEDS_ACTION, Capture.CAPTURE_AUTOMATIC)
        await bench.take_in(change_record(waiting))
        await live_through(bench)
        assert (await standing(bench))[0] == "requires_action"
        await accepted(bench, CANCEL)
        await live_through(bench)
        assert await standing(bench) == ("canceled", 0, 0)
    (intent,) = await intents_of(behind, NAME)
    assert intent["status"] == "canceled"
    assert mortal.deaths == 1
