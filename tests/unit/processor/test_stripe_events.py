"""What Stripe's events say, as far as the gateway keeps them: which operation, and what came of it."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.psp.interface import ActionRequired, Approved, Declined, Done, OperationKind
from processor.psp.stripe.events import INTENT_TYPES, TYPES, read_stripe_event
from processor.psp.stripe.requests import CAPTURE_KEY_NAME, KEY_NAME, PAYMENT_NAME
from processor.psp.webhook import Irrelevant, Reading, Report, Subject, Unreadable
from tests.fixtures.stripe_shapes import Document, card_error, event, payment_intent, redirect_to, refund
from tollgate.webhooks.interface import Verified
from tollgate.webhooks.stripe import StripeWebhooks, signed_headers

PI = "pi_3MtwBwLkdIwHu7ix28a3tqPa"
NAME = "demo/checkout-1"
NAMES = {PAYMENT_NAME: NAME, KEY_NAME: "create-key"}
PAYMENT, CAPTURE, CANCEL, REFUND = OperationKind


def reading(kind: str, told: Document) -> Reading:
    """As it comes through the gateway."""
    body = orjson.dumps(event(kind, told))
    found = StripeWebhooks(["whsec_1"]).verify(signed_headers("whsec_1", body, 0.0), body, 0.0)
    assert isinstance(found, Verified)
    return read_stripe_event(found.events[0].body)


def intent(**different: object) -> Document:
    return payment_intent(**{"metadata": NAMES, **different})


DECLINED = card_error("insufficient_funds", "No.", intent())["error"]["payment_intent"]
WAITING = intent(status="requires_action", next_action=redirect_to("https://3ds", "https://shop"))
HELD = intent(status="requires_capture", amount_capturable=2000, capture_method="manual")


@pytest.mark.parametrize(
    ("kind", "told", "outcome"),
    [
        ("succeeded", intent(status="succeeded", amount_received=2000), Approved(PI, 2000, "USD", True)),
        ("amount_capturable_updated", HELD, Approved(PI, 2000, "USD", False)),
        ("requires_action", WAITING, ActionRequired(PI, "https://3ds")),
        ("payment_failed", DECLINED, Declined("insufficient_funds", "No.", PI)),
    ],
)
def test_a_payment_s_outcome_is_told_by_the_key_that_created_it(
    kind: str, told: Document, outcome: Approved | ActionRequired | Declined
) -> None:
    assert reading(f"payment_intent.{kind}", told) == Report(Subject("create-key"), PAYMENT, outcome)


def test_a_capture_is_told_by_its_own_key_or_else_as_somebody_s() -> None:
    captured = intent(status="succeeded", amount_received=1500, capture_method="manual")
    done = Done(PI, 1500, "USD")
    found = reading("payment_intent.succeeded", captured)
    assert found == Report(Subject(payment_key=NAME), CAPTURE, done)
    captured["metadata"] = NAMES | {CAPTURE_KEY_NAME: "capture-key"}
    assert reading("payment_intent.succeeded", captured) == Report(Subject("capture-key"), CAPTURE, done)


def test_an_end_is_told_as_a_cancel_of_the_payment() -> None:
    found = reading("payment_intent.canceled", intent(status="canceled"))
    assert found == Report(Subject(payment_key=NAME), CANCEL, Done(PI, 2000, "USD"))


@pytest.mark.parametrize(
    "kind", ["refund.created", "refund.updated", "refund.failed", "charge.refund.updated"]
)
def test_a_refund_is_told_by_its_key_as_it_stands(kind: str) -> None:
    ours = refund(metadata={KEY_NAME: "refund-key"})
    done = Done("re_1Nispe2eZvKYlo2Cd31jOCgZ", 1000, "USD")
    assert reading(kind, ours) == Report(Subject("refund-key"), REFUND, done)
    failed = reading(kind, ours | {"status": "failed", "failure_reason": "expired_or_canceled_card"})
    refused = Declined("expired_or_canceled_card", "The refund failed at Stripe.")
    assert failed == Report(Subject("refund-key"), REFUND, refused)
    assert isinstance(reading(kind, ours | {"status": "pending"}), Irrelevant)


def test_a_refund_that_tollgate_never_asked_for_is_told_to_a_person() -> None:
    assert isinstance(reading("refund.created", refund()), Unreadable)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("charge.refunded", {"object": "charge"}),
        ("payment_intent.created", intent()),
        ("payment_intent.succeeded", payment_intent(status="succeeded")),  # another integration's
        ("payment_intent.requires_action", intent(status="processing")),
    ],
)
def test_what_decides_nothing_is_irrelevant(kind: str, told: Document) -> None:
    assert isinstance(reading(kind, told), Irrelevant)


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_an_event_of_another_shape_is_unreadable(kind: str) -> None:
    assert isinstance(reading(kind, {"object": "odd"}), Unreadable)


def test_an_amount_that_the_currency_does_not_have_is_never_rounded() -> None:
    odd = intent(status="canceled", currency="isk", amount=250)
    assert isinstance(reading("payment_intent.canceled", odd), Unreadable)


@given(body=st.binary(max_size=60), kind=st.sampled_from(sorted(INTENT_TYPES)))
def test_no_body_makes_the_reader_raise(body: bytes, kind: str) -> None:
    assert isinstance(read_stripe_event(body), Irrelevant | Unreadable)
    shapes: tuple[object, ...] = (
        None,
        [],
        {"data": []},
        {"data": {"object": []}, "type": kind},
        {"type": [], "data": {"object": {}}},
    )
    for shape in shapes:
        assert isinstance(read_stripe_event(orjson.dumps(shape)), Irrelevant | Unreadable)
