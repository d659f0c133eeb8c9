"""Stripe's events from the verifier to the payment: they bring what no answer brought, and the rest again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count
from typing import cast

import orjson
import pytest

from processor.inbox import Inbox, PspWebhooks
from processor.patience import Health
from processor.psp.stripe.adapter import StripePsp
from processor.psp.stripe.events import read_stripe_event
from processor.storage.database import Pool
from tests.fixtures.changes import NOW_US, change_record
from tests.fixtures.psp_double import PspDouble
from tests.fixtures.stripe_front import APPROVES, LOST, NEEDS_ACTION, StripeFront
from tests.fixtures.stripe_in_memory import StripeInMemory
from tests.fixtures.stripe_shapes import Document, event, refund
from tests.fixtures.webhooks import webhook_record
from tests.integration.processor.asking import CANCEL, CAPTURE, HOUR_S, REFUND, accepted, drain, standing
from tests.integration.processor.conftest import Bench, bench_on
from tests.integration.processor.hearing import anomalies
from tests.integration.processor.test_stripe_crashes import payment_at_stripe
from tollgate.clock import FakeClock
from tollgate.v1.payment_pb2 import Capture
from tollgate.webhooks.interface import Verified
from tollgate.webhooks.stripe import StripeWebhooks, signed_headers

_IDS = count(1)
AUTOMATIC, MANUAL = Capture.CAPTURE_AUTOMATIC, Capture.CAPTURE_MANUAL


@pytest.fixture
def stripe() -> StripeInMemory:
    return StripeInMemory()


@pytest.fixture
async def bench(pool: Pool, stripe: StripeInMemory) -> AsyncIterator[Bench]:
    front = StripeFront(stripe)
    await front.start()
    adapter = StripePsp("sk_test_1", front.url, 0.5, return_url="https://shop.example/back")
    async with bench_on(pool, cast(PspDouble, adapter), FakeClock(NOW_US + 5000)) as made:
        yield made
    await adapter.close()
    await front.stop()


async def told(bench: Bench, kind: str, document: Document) -> str:
    """What became of an event, signed and verified as at a shard."""
    event_id = f"evt_{next(_IDS)}"
    body = orjson.dumps(event(kind, document, id=event_id))
    verified = StripeWebhooks(["whsec_1"]).verify(signed_headers("whsec_1", body, 0.0), body, 0.0)
    assert isinstance(verified, Verified)
    (kept,) = verified.events
    await bench.take_in(webhook_record(kept.event_id, kept.body, psp="stripe"))
    inbox = Inbox(
        bench.pool,
        {"stripe": PspWebhooks(read_stripe_event, StripePsp.plan)},
        bench.clock,
        Health(),
        bench.committed.append,
    )
    while await inbox.apply_due():
        pass
    result = "SELECT result FROM webhook_inbox WHERE event_id = $1"
    return str(await bench.pool.fetchval(result, event_id))


async def pay(bench: Bench, method: str, capture: Capture.ValueType) -> None:
    await bench.take_in(change_record(payment_at_stripe(method, capture)))
    assert await bench.run_due() == 1  # created
    assert await bench.run_due() == 1  # confirmed


async def test_an_event_brings_the_outcome_of_a_confirmation_that_was_never_answered(
    bench: Bench, stripe: StripeInMemory
) -> None:
    await pay(bench, LOST, AUTOMATIC)
    assert (await standing(bench))[0] == "processing"
    (intent,) = stripe.intents.values()
    assert await told(bench, "payment_intent.succeeded", intent) == "applied"
    assert await standing(bench) == ("succeeded", 1234, 0)
    assert await told(bench, "payment_intent.succeeded", intent) == "known"
    assert await anomalies(bench) == []


async def test_what_was_answered_is_told_again_and_nothing_contradicts_it(
    bench: Bench, stripe: StripeInMemory
) -> None:
    await pay(bench, APPROVES, MANUAL)
    (intent,) = stripe.intents.values()
    assert await told(bench, "payment_intent.amount_capturable_updated", intent) == "known"
    await accepted(bench, CAPTURE, 1000)
    await drain(bench)
    assert await told(bench, "payment_intent.succeeded", intent) == "known"
    await accepted(bench, REFUND, 400)
    await drain(bench)
    for kind in ("refund.created", "refund.updated", "charge.refund.updated"):
        assert await told(bench, kind, stripe.refunds[0]) == "known"
    assert await standing(bench) == ("partially_refunded", 1000, 400)
    assert await anomalies(bench) == []


@pytest.mark.parametrize("approves", [True, False])
async def test_a_payer_s_decision_comes_by_event(
    bench: Bench, stripe: StripeInMemory, approves: bool
) -> None:
    await pay(bench, NEEDS_ACTION, AUTOMATIC)
    (intent,) = stripe.intents.values()
    assert (await standing(bench))[0] == "requires_action"
    assert await told(bench, "payment_intent.requires_action", intent) == "known"
    await stripe.decide(intent["id"], approves=approves)
    kind = "payment_intent.succeeded" if approves else "payment_intent.payment_failed"
    assert await told(bench, kind, intent) == "applied"
    assert await standing(bench) == (("succeeded", 1234, 0) if approves else ("failed", 0, 0))


async def test_the_end_of_what_waited_for_its_payer_contradicts_nothing(
    bench: Bench, stripe: StripeInMemory
) -> None:
    await pay(bench, NEEDS_ACTION, AUTOMATIC)
    bench.clock.advance(HOUR_S)
    await bench.let_leases_end()
    await drain(bench)
    assert (await bench.payment())["failure_code"] == "action_expired"
    (intent,) = stripe.intents.values()
    assert intent["status"] == "canceled"
    assert await told(bench, "payment_intent.canceled", intent) == "known"
    assert await anomalies(bench) == []


async def test_an_authorization_that_stripe_ended_is_canceled(bench: Bench, stripe: StripeInMemory) -> None:
    await pay(bench, APPROVES, MANUAL)
    (intent,) = stripe.intents.values()
    intent |= {"status": "canceled", "amount_capturable": 0, "cancellation_reason": "automatic"}
    assert await told(bench, "payment_intent.canceled", intent) == "applied"
    assert (await standing(bench))[0] == "canceled"


async def test_a_refund_made_by_hand_at_stripe_is_kept_for_a_person_with_all_that_names_it(
    bench: Bench, stripe: StripeInMemory
) -> None:
    await pay(bench, APPROVES, AUTOMATIC)
    (intent,) = stripe.intents.values()
    by_hand = refund(amount=234, payment_intent=intent["id"])
    assert await told(bench, "refund.created", by_hand) == "unreadable"
    assert await standing(bench) == ("succeeded", 1234, 0), "what nobody asked Tollgate for is a person's"
    kept = orjson.loads(await bench.pool.fetchval("SELECT body FROM webhook_inbox"))["data"]["object"]
    assert {name: kept[name] for name in ("id", "amount", "currency", "payment_intent")} == {
        "id": by_hand["id"],
        "amount": 234,
        "currency": "usd",
        "payment_intent": intent["id"],
    }


async def test_a_cancel_that_was_asked_for_is_told_again(bench: Bench, stripe: StripeInMemory) -> None:
    await pay(bench, APPROVES, MANUAL)
    await accepted(bench, CANCEL)
    await drain(bench)
    (intent,) = stripe.intents.values()
    assert await told(bench, "payment_intent.canceled", intent) == "known"
    assert await standing(bench) == ("canceled", 0, 0)
    assert await anomalies(bench) == []
