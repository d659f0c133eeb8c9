"""Payments at Adyen from the first send to the last notification: verified, taken in and applied as the
processor does it, once each, whatever their order.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import cast

import aiohttp
import pytest

from processor.inbox import Inbox, PspWebhooks
from processor.patience import Health
from processor.psp.adyen.adapter import PLAN, AdyenPsp
from processor.psp.adyen.library import AdyenAccount
from processor.psp.adyen.notifications import read_adyen_notification
from processor.storage.database import Pool
from tests.fixtures.adyen_double import API_KEY, HMAC_KEY, MERCHANT_ACCOUNT, AdyenDouble
from tests.fixtures.changes import NOW_US, accepted_payment, change_record
from tests.fixtures.psp_double import PspDouble
from tests.fixtures.webhooks import webhook_record
from tests.integration.processor.asking import (
    CANCEL,
    CAPTURE,
    HOUR_S,
    REFUND,
    accepted,
    drain,
    standing,
)
from tests.integration.processor.conftest import Bench, bench_on
from tests.integration.processor.hearing import anomalies
from tollgate.clock import FakeClock
from tollgate.v1.payment_pb2 import Capture
from tollgate.webhooks.adyen import AdyenWebhooks
from tollgate.webhooks.interface import Verified

BY_HAND = Capture.CAPTURE_MANUAL


@pytest.fixture
async def adyen() -> AsyncIterator[AdyenDouble]:
    double = AdyenDouble()
    await double.start()
    yield double
    await double.stop()


@pytest.fixture
async def bench(pool: Pool, adyen: AdyenDouble) -> AsyncIterator[Bench]:
    account = AdyenAccount(API_KEY, MERCHANT_ACCOUNT, "https://shop.example/back", url=adyen.url)
    psp = AdyenPsp(account, timeout_s=0.5)
    async with bench_on(pool, cast(PspDouble, psp), FakeClock(NOW_US + 5000)) as made:
        yield made
    await psp.close()


async def pay(
    bench: Bench, behaviour: str = "approves", capture: Capture.ValueType = Capture.CAPTURE_AUTOMATIC
) -> None:
    payment = accepted_payment(capture=capture)
    payment.psp, payment.payment_method = "adyen", behaviour
    await bench.take_in(change_record(payment))
    await drain(bench)


async def hear(bench: Bench, bodies: Sequence[bytes]) -> None:
    """As a shard verifies them, intake stores them and the inbox applies them."""
    verifier = AdyenWebhooks([HMAC_KEY])
    for body in bodies:
        verified = verifier.verify({}, body, now_s=0.0)
        assert isinstance(verified, Verified)
        await bench.take_in(*(webhook_record(*event, psp="adyen") for event in verified.events))
    webhooks = {"adyen": PspWebhooks(read_adyen_notification, PLAN)}
    inbox = Inbox(bench.pool, webhooks, bench.clock, Health(), bench.committed.append)
    await bench.pool.execute("UPDATE webhook_inbox SET due_at = now() WHERE due_at IS NOT NULL")
    while await inbox.apply_due():
        pass


async def let_time_pass(bench: Bench, seconds: float) -> None:
    """Until what was put off is due."""
    bench.clock.advance(seconds)
    await bench.let_leases_end()
    await drain(bench)


async def outcome_of(bench: Bench, operation_id: str) -> tuple[str, str]:
    operation = await bench.operation(operation_id=operation_id)
    return operation["status"], operation["failure_code"]


async def test_a_capture_and_refunds_end_when_adyen_tells_and_not_before(
    bench: Bench, adyen: AdyenDouble
) -> None:
    await pay(bench, capture=BY_HAND)
    assert await standing(bench) == ("authorized", 0, 0)
    capture = await accepted(bench, CAPTURE, 1000)
    await drain(bench)
    assert (await standing(bench), adyen.total("checkout-0001", "capture")) == (("authorized", 0, 0), 1000)
    await hear(bench, adyen.notifications)
    assert await outcome_of(bench, capture) == ("succeeded", "")
    assert await standing(bench) == ("succeeded", 1000, 0)
    refunds = [await accepted(bench, REFUND, amount) for amount in (400, 600)]
    await drain(bench)
    assert await standing(bench) == ("succeeded", 1000, 0)
    await hear(bench, adyen.notifications[::-1])
    assert [await outcome_of(bench, refund) for refund in refunds] == [("succeeded", "")] * 2
    assert await standing(bench) == ("refunded", 1000, 1000)
    assert await anomalies(bench) == []


async def test_notifications_twice_and_in_any_order_come_to_the_same(
    bench: Bench, adyen: AdyenDouble
) -> None:
    await pay(bench, capture=BY_HAND)
    await accepted(bench, CAPTURE)
    await drain(bench)
    for _ in range(2):
        await hear(bench, adyen.notifications[::-1])
    assert await standing(bench) == ("succeeded", 1234, 0)
    assert await anomalies(bench) == []


async def test_what_adyen_refuses_later_fails_with_its_reason_and_leaves_the_payment(
    bench: Bench, adyen: AdyenDouble
) -> None:
    await pay(bench)
    (held,) = adyen.payments.values()
    held.refunded = 1234  # by somebody in Adyen's Customer Area
    refund = await accepted(bench, REFUND, 1)
    await drain(bench)
    await hear(bench, adyen.notifications)
    status, code = await outcome_of(bench, refund)
    assert (status, code) == ("failed", "insufficient_balance_on_payment_it_is_captured")
    assert await standing(bench) == ("succeeded", 1234, 0)


async def test_an_authorization_that_is_canceled_ends_when_adyen_tells(
    bench: Bench, adyen: AdyenDouble
) -> None:
    await pay(bench, capture=BY_HAND)
    cancel = await accepted(bench, CANCEL)
    await drain(bench)
    await hear(bench, adyen.notifications)
    assert await outcome_of(bench, cancel) == ("succeeded", "")
    assert await standing(bench) == ("canceled", 0, 0)


@pytest.mark.parametrize(("approves", "status"), [(True, "succeeded"), (False, "failed")])
async def test_a_payer_who_came_is_told_of_by_adyen(
    bench: Bench, adyen: AdyenDouble, approves: bool, status: str
) -> None:
    await pay(bench, "redirects")
    row = await bench.payment()
    assert row["status"] == "requires_action"
    form = {"outcome": "approve" if approves else "decline"}
    async with aiohttp.ClientSession(raise_for_status=True) as payer:
        await payer.post(row["next_action_url"], data=form)
    await hear(bench, adyen.notifications)
    assert (await bench.payment())["status"] == status
    assert len(adyen.effects) == approves


async def test_a_payer_who_did_not_come_is_ended_at_adyen_after_an_hour(
    bench: Bench, adyen: AdyenDouble
) -> None:
    await pay(bench, "redirects")
    await let_time_pass(bench, HOUR_S - 60)
    assert len(adyen.calls) == 1
    await let_time_pass(bench, 61)
    assert (await bench.payment())["status"] == "requires_action"
    await hear(bench, adyen.notifications)
    payment = await bench.payment()
    assert (payment["status"], payment["failure_code"]) == ("failed", "action_expired")
    (held,) = adyen.payments.values()
    assert (held.status, adyen.effects) == ("cancelled", [])


async def test_a_payer_who_did_not_come_is_told_of_by_adyen_where_it_ends_nothing_before(
    bench: Bench, adyen: AdyenDouble
) -> None:
    adyen.cancels_offers = False
    await pay(bench, "redirects")
    await let_time_pass(bench, HOUR_S)
    await hear(bench, adyen.notifications)
    await drain(bench)
    assert (await bench.payment())["status"] == "requires_action"
    assert (await bench.operation())["parked_reason"] is None
    (held,) = adyen.payments.values()
    adyen.close_offer(held)
    await hear(bench, adyen.notifications)
    payment = await bench.payment()
    assert (payment["status"], payment["failure_code"]) == ("failed", "action_expired")
    assert (adyen.effects, await anomalies(bench)) == ([], [])


async def test_an_authorization_past_its_window_is_ended_at_adyen(bench: Bench, adyen: AdyenDouble) -> None:
    await pay(bench, capture=BY_HAND)
    await let_time_pass(bench, 28 * 24 * HOUR_S + 1)
    await hear(bench, adyen.notifications)
    payment = await bench.payment()
    assert (payment["status"], payment["failure_code"]) == ("canceled", "authorization_expired")
    assert adyen.total("checkout-0001", "cancel") == 1234


async def test_a_payment_that_adyen_decides_later_waits_for_its_word(
    bench: Bench, adyen: AdyenDouble
) -> None:
    await pay(bench, "later")
    assert (await bench.payment())["status"] == "processing"
    (held,) = adyen.payments.values()
    adyen.authorise(held)
    await hear(bench, adyen.notifications)
    assert await standing(bench) == ("succeeded", 1234, 0)


async def test_adyens_silence_is_a_persons_after_three_days(bench: Bench, adyen: AdyenDouble) -> None:
    await pay(bench)
    refund = await accepted(bench, REFUND)
    await drain(bench)
    await let_time_pass(bench, 3 * 24 * HOUR_S)
    operation = await bench.operation(operation_id=refund)
    assert "not told" in operation["parked_reason"]
    await hear(bench, adyen.notifications)
    assert await outcome_of(bench, refund) == ("succeeded", "")
    assert adyen.total("checkout-0001", "refund") == 1234
