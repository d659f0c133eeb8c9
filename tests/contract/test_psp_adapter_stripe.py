"""What Stripe's adapter makes of Stripe's documented answers, and of those that Stripe never gives."""

from __future__ import annotations

import pytest

from processor.psp.interface import (
    ActionRequired,
    Advanced,
    Approved,
    Awaited,
    Declined,
    Done,
    Outcome,
    PspRequest,
    Retryable,
    Unknown,
)
from processor.psp.stripe.adapter import StripePsp
from processor.psp.stripe.answers import INVALID, REFUSED_KEY_S
from processor.psp.stripe.objects import TEXT_MAX
from processor.psp.stripe.requests import CAPTURE_KEY_NAME, KEY_NAME
from tests.contract.psp_doubles import TRACEPARENT
from tests.fixtures.one_answer import OneAnswer
from tests.fixtures.stripe_shapes import (
    BROKEN,
    KEY_IN_USE,
    KEY_REUSED,
    RATE_LIMITED,
    WRONG_API_KEY,
    Document,
    card_error,
    error,
    page,
    payment_intent,
    redirect_to,
    refund,
    unexpected_state,
)
from tollgate.v1.payment_pb2 import Payment

API_KEY = "sk_test_4eC39HqLyjWDarjtT1zdp7dc"
KEY = "k" * 64
PI = "pi_3MtwBwLkdIwHu7ix28a3tqPa"
CREATE = PspRequest("POST", "/v1/payment_intents", KEY, b"amount=2000&currency=usd&payment_method=pm_1")
CONFIRM = PspRequest("POST", f"/v1/payment_intents/{PI}/confirm", KEY, b"return_url=https%3A%2F%2Fshop")
CAPTURE = PspRequest("POST", f"/v1/payment_intents/{PI}/capture", KEY, b"amount_to_capture=1500")
CANCEL = PspRequest("POST", f"/v1/payment_intents/{PI}/cancel", KEY, b"")
REFUND = PspRequest("POST", "/v1/refunds", KEY, f"payment_intent={PI}&amount=1000".encode())
PAID = payment_intent(status="succeeded", amount_received=2000)
HELD = payment_intent(status="requires_capture", amount_capturable=2000, capture_method="manual")
CAPTURED = payment_intent(status="succeeded", amount_received=1500, metadata={CAPTURE_KEY_NAME: KEY})
VOIDED = payment_intent(status="canceled")
REFUNDED = refund(metadata={KEY_NAME: KEY})


async def sent(stripe: StripePsp, request: PspRequest) -> Outcome:
    return await stripe.send(request, TRACEPARENT)


CREATED = payment_intent(metadata={KEY_NAME: KEY})
WAITING = payment_intent(status="requires_action", next_action=redirect_to("https://3ds", "https://shop"))


@pytest.mark.parametrize(
    ("request_", "document", "outcome"),
    [
        (CREATE, CREATED, Advanced(PI)),
        (CONFIRM, PAID, Approved(PI, 2000, "USD", captured=True)),
        (CONFIRM, HELD, Approved(PI, 2000, "USD", captured=False)),
        (CONFIRM, WAITING, ActionRequired(PI, "https://3ds")),
        (CAPTURE, CAPTURED, Done(PI, 1500, "USD")),
        (CANCEL, VOIDED, Done(PI, 2000, "USD")),
        (REFUND, REFUNDED, Done("re_1Nispe2eZvKYlo2Cd31jOCgZ", 1000, "USD")),
        (REFUND, REFUNDED | {"status": "pending"}, Awaited("re_1Nispe2eZvKYlo2Cd31jOCgZ")),
    ],
)
async def test_what_was_done_is_told_as_stripe_tells_it(
    stripe: StripePsp, answers: OneAnswer, request_: PspRequest, document: Document, outcome: Outcome
) -> None:
    answers.gives(200, document)
    assert await sent(stripe, request_) == outcome


@pytest.mark.parametrize(
    ("request_", "document"),
    [
        (CREATE, payment_intent()),  # of another request
        (CREATE, CREATED | {"amount": 2001}),
        (CREATE, CREATED | {"currency": "eur"}),
        (CREATE, CREATED | {"livemode": True}),
        (CREATE, CREATED | {"id": "pi_1/../refunds"}),
        (CONFIRM, PAID | {"id": "pi_another"}),
        (CONFIRM, PAID | {"amount_received": "2000"}),
        (CONFIRM, PAID | {"livemode": True}),
        (CONFIRM, PAID | {"object": "charge"}),
        (CONFIRM, payment_intent(status="processing")),
        (CONFIRM, payment_intent()),
        (CONFIRM, payment_intent(status="requires_action")),
        (CONFIRM, payment_intent(status="requires_payment_method")),
        (CAPTURE, HELD),
        (CAPTURE, payment_intent(status="processing")),
        (CANCEL, payment_intent(status="processing")),
        (REFUND, refund()),
        (REFUND, REFUNDED | {"amount": 999}),
        (REFUND, REFUNDED | {"payment_intent": "pi_another"}),
        (REFUND, REFUNDED | {"status": "requires_action"}),
        (REFUND, [REFUNDED]),
    ],
)
async def test_an_answer_about_anything_else_is_unknown(
    stripe: StripePsp, answers: OneAnswer, request_: PspRequest, document: object
) -> None:
    answers.gives(200, document)
    assert isinstance(await sent(stripe, request_), Unknown)


@pytest.mark.parametrize(
    ("decline_code", "told"),
    [
        ("insufficient_funds", "insufficient_funds"),
        ("expired_card", "expired_card"),
        ("stolen_card", "generic_decline"),  # the payer may be the thief
        ("fraudulent", "generic_decline"),
    ],
)
async def test_a_declined_card_is_told_with_its_reason_unless_that_warns_a_thief(
    stripe: StripePsp, answers: OneAnswer, decline_code: str, told: str
) -> None:
    answers.gives(402, card_error(decline_code, "Your card was declined.", payment_intent()))
    assert await sent(stripe, CONFIRM) == Declined(told, "Your card was declined.", PI)
    answers.gives(402, card_error(decline_code, "Your card was declined."))
    assert await sent(stripe, CONFIRM) == Declined(told, "Your card was declined.", PI)


async def test_what_a_refusal_says_is_kept_as_far_as_it_can_be_stored(
    stripe: StripePsp, answers: OneAnswer
) -> None:
    answers.gives(400, error("invalid_request_error", code="x\0y", message="No.\0" + "o" * 60_000))
    declined = await sent(stripe, CREATE)
    assert isinstance(declined, Declined)
    assert (declined.code, declined.message[:4], len(declined.message)) == ("xy", "No.o", TEXT_MAX)


async def test_too_many_calls_is_retryable_after_what_stripe_says(
    stripe: StripePsp, answers: OneAnswer
) -> None:
    answers.gives(429, RATE_LIMITED)
    assert await sent(stripe, CONFIRM) == Retryable("Stripe answered 429")
    answers.headers = {"Retry-After": "3"}
    answers.raw = b"<html>slow down</html>"
    assert await sent(stripe, CONFIRM) == Retryable("Stripe answered 429", 3.0)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_api_key_leaves_time_to_correct_it_and_is_not_repeated(
    stripe: StripePsp, answers: OneAnswer, status: int
) -> None:
    answers.gives(status, WRONG_API_KEY)
    outcome = await sent(stripe, CONFIRM)
    assert isinstance(outcome, Retryable)
    assert outcome.retry_after_s == REFUSED_KEY_S
    assert "sk_" not in outcome.reason


@pytest.mark.parametrize(
    ("status", "document"),
    [(500, BROKEN), (502, BROKEN), (503, BROKEN), (424, BROKEN), (409, KEY_IN_USE), (400, KEY_REUSED)],
)
@pytest.mark.parametrize("request_", [CREATE, CONFIRM, CAPTURE, CANCEL, REFUND])
async def test_a_failure_and_a_conflict_are_unknown(
    stripe: StripePsp, answers: OneAnswer, request_: PspRequest, status: int, document: Document
) -> None:
    answers.gives(status, document)
    assert isinstance(await sent(stripe, request_), Unknown)
    assert isinstance(await stripe.look_up(request_, PI), Unknown)


@pytest.mark.parametrize(
    ("request_", "stands", "outcome"),
    [
        (CONFIRM, PAID, Approved(PI, 2000, "USD", captured=True)),
        (CONFIRM, VOIDED, Declined("canceled", "The payment was canceled at Stripe.", PI)),
        (CAPTURE, CAPTURED, Done(PI, 1500, "USD")),
        (CAPTURE, PAID, Declined(INVALID, "The payment was captured by another request.")),
        (CAPTURE, VOIDED, Declined(INVALID, "The authorization was canceled or expired at Stripe.")),
        (CANCEL, VOIDED, Done(PI, 2000, "USD")),
        (CANCEL, PAID, Declined(INVALID, "The payment was captured already.")),
    ],
)
async def test_a_refusal_for_the_state_is_judged_by_the_state(
    stripe: StripePsp, answers: OneAnswer, request_: PspRequest, stands: Document, outcome: Outcome
) -> None:
    """An earlier send of the same may be what brought it there, and Stripe may have forgotten the key."""
    answers.gives(400, unexpected_state(stands))
    assert await sent(stripe, request_) == outcome
    answers.gives(200, stands)
    assert await stripe.look_up(request_, "") == outcome


async def test_a_refusal_for_the_state_that_shows_no_state_is_unknown(
    stripe: StripePsp, answers: OneAnswer
) -> None:
    answers.gives(400, error("invalid_request_error", code="payment_intent_unexpected_state", message="?"))
    assert isinstance(await sent(stripe, CONFIRM), Unknown)
    answers.gives(404, error("invalid_request_error", code="resource_missing", message="No such thing."))
    assert isinstance(await sent(stripe, CONFIRM), Unknown)  # the key may be of another account
    assert isinstance(await stripe.look_up(CONFIRM, PI), Unknown)


@pytest.mark.parametrize(("request_", "stands"), [(CONFIRM, CREATED), (CAPTURE, HELD), (CANCEL, HELD)])
async def test_what_never_was_is_found_to_be_so_and_may_be_sent_again(
    stripe: StripePsp, answers: OneAnswer, request_: PspRequest, stands: Document
) -> None:
    answers.gives(200, stands)
    assert isinstance(await stripe.look_up(request_, ""), Retryable)


async def test_a_creation_in_doubt_is_found_by_our_key_among_the_newest(
    stripe: StripePsp, answers: OneAnswer
) -> None:
    answers.gives(200, page([payment_intent(id="pi_another"), {"object": "odd"}, CREATED], has_more=True))
    assert await stripe.look_up(CREATE, "") == Advanced(PI)
    answers.gives(200, page([payment_intent(id="pi_another")], has_more=True))
    assert isinstance(await stripe.look_up(CREATE, ""), Retryable)
    answers.gives(200, {"object": "list"})
    assert isinstance(await stripe.look_up(CREATE, ""), Unknown)
    assert answers.seen[0][0].path_qs == "/v1/payment_intents?limit=100"


async def test_a_refund_in_doubt_is_found_by_our_key_and_missed_in_a_whole_list_alone(
    stripe: StripePsp, answers: OneAnswer
) -> None:
    other = refund(id="re_2", metadata={KEY_NAME: "another"})
    answers.gives(200, page([other, REFUNDED]))
    assert await stripe.look_up(REFUND, "") == Done("re_1Nispe2eZvKYlo2Cd31jOCgZ", 1000, "USD")
    answers.gives(
        200, page([other, REFUNDED | {"status": "failed", "failure_reason": "lost_or_stolen_card"}])
    )
    assert await stripe.look_up(REFUND, "") == Declined(
        "lost_or_stolen_card", "The refund failed at Stripe.", ""
    )
    answers.gives(200, page([other]))
    assert isinstance(await stripe.look_up(REFUND, ""), Retryable)
    unsure_of: list[Document] = [page([other], has_more=True), page([other, {"id": "re_3"}]), {"data": []}]
    for unsure in unsure_of:
        answers.gives(200, unsure)
        assert isinstance(await stripe.look_up(REFUND, ""), Unknown)
    assert answers.seen[0][0].path_qs == f"/v1/refunds?payment_intent={PI}&limit=100"


async def test_a_payment_asked_about_is_that_payment(stripe: StripePsp, answers: OneAnswer) -> None:
    standing = Payment(psp_reference=PI)
    answers.gives(200, HELD)
    assert await stripe.ask(standing) == Approved(PI, 2000, "USD", captured=False)
    answers.gives(200, payment_intent(status="requires_payment_method", last_payment_error={"code": "c"}))
    assert isinstance(await stripe.ask(standing), Declined)
    for other in (HELD | {"id": "pi_another"}, HELD | {"livemode": True}, {}):
        answers.gives(200, other)
        assert await stripe.ask(standing) == Unknown("Stripe's answer is not about what was sent", PI)
