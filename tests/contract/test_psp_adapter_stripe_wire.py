"""Stripe's adapter on the wire: what goes out, once, and what comes of answers that are none."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator

import orjson
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from processor.psp.interface import Advanced, Declined, Order, Outcome, PspRequest, Retryable, Unknown
from processor.psp.stripe.adapter import StripePsp
from processor.psp.stripe.amounts import from_stripe, to_stripe
from processor.psp.stripe.requests import KEY_NAME
from processor.psp.stripe.transport import ANSWER_BYTES_MAX
from tests.contract.psp_doubles import TRACEPARENT, execution_of, payment
from tests.fixtures.one_answer import OneAnswer
from tests.fixtures.stripe_shapes import BROKEN, WRONG_API_KEY, payment_intent
from tollgate.errors import ConfigurationError
from tollgate.v1.payment_pb2 import Payment

API_KEY = "sk_test_4eC39HqLyjWDarjtT1zdp7dc"
KEY = "k" * 64
PI = "pi_3MtwBwLkdIwHu7ix28a3tqPa"
CONFIRM = PspRequest("POST", f"/v1/payment_intents/{PI}/confirm", KEY, b"return_url=https%3A%2F%2Fshop")
CREATED = payment_intent(metadata={KEY_NAME: KEY})
PAID = payment_intent(status="succeeded", amount_received=2000)


async def sent(stripe: StripePsp, request: PspRequest) -> Outcome:
    return await stripe.send(request, TRACEPARENT)


@given(status=st.integers(200, 599), answer=st.binary(max_size=40))
def test_an_unreadable_answer_is_never_an_approval_nor_a_decline(status: int, answer: bytes) -> None:
    assert isinstance(asyncio.run(outcome_of(status, answer)), Unknown | Retryable)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "code", "type", "message", "object", "payment_intent", "param"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(status=st.integers(200, 599), told=JSON)
def test_no_shape_of_an_answer_makes_the_adapter_raise(status: int, told: object) -> None:
    for document in (told, {"error": told}):
        outcome = asyncio.run(outcome_of(status, json.dumps(document).encode()))
        assert isinstance(outcome, Unknown | Retryable | Declined)


class Unplugged:
    """A session without a network: one answer."""

    def __init__(self, status: int, answer: bytes) -> None:
        self.status = status
        self.headers: dict[str, str] = {}
        self.content = self
        self._answer = answer

    def request(self, *_asked: object, **_more: object) -> Unplugged:
        return self

    async def __aenter__(self) -> Unplugged:
        return self

    async def __aexit__(self, *_error: object) -> None:
        return None

    async def iter_chunked(self, _size: int) -> AsyncIterator[bytes]:
        yield self._answer


async def outcome_of(status: int, answer: bytes) -> Outcome:
    stripe = StripePsp(API_KEY, "http://stripe.example", timeout_s=1.0)
    plugged, stripe._session = stripe._session, Unplugged(status, answer)  # type: ignore[assignment]
    await plugged.close()
    return await stripe.send(CONFIRM, TRACEPARENT)


async def test_the_stored_bytes_and_key_go_out_as_they_are(stripe: StripePsp, answers: OneAnswer) -> None:
    odd = PspRequest("POST", "/v1/payment_intents", KEY, b"currency=usd&amount=2000&description=a%20b+c")
    answers.gives(200, CREATED)
    for _ in range(2):
        assert await sent(stripe, odd) == Advanced(PI)
    for request, body in answers.seen:
        assert (request.path_qs, body) == (odd.path, odd.body)
        assert request.headers["Idempotency-Key"] == KEY
        assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
        assert request.headers["Stripe-Version"]
        assert "traceparent" not in request.headers


async def test_a_send_is_one_send_whatever_comes_of_it(stripe: StripePsp, answers: OneAnswer) -> None:
    answers.gives(307, {})
    answers.headers = {"Location": "/elsewhere", "Stripe-Should-Retry": "true"}
    assert isinstance(await sent(stripe, CONFIRM), Unknown)
    answers.gives(500, BROKEN)
    assert isinstance(await sent(stripe, CONFIRM), Unknown)
    answers.then = lambda request: request.transport.abort() if request.transport else None
    assert isinstance(await sent(stripe, CONFIRM), Unknown)  # on a connection kept alive
    assert len(answers.seen) == 3


async def test_an_endless_answer_is_unknown(stripe: StripePsp, answers: OneAnswer) -> None:
    answers.raw = b" " * ANSWER_BYTES_MAX + orjson.dumps(PAID)
    assert isinstance(await sent(stripe, CONFIRM), Unknown)


async def test_a_payer_with_nowhere_to_go_is_declined_instead_of_waited_for() -> None:
    def confirmation(wanted: Payment, default: str | None) -> bytes:
        stripe = StripePsp(API_KEY, "http://stripe.example", 1.0, return_url=default)
        closing.append(stripe)
        order = Order(execution_of(wanted).kind, wanted, "payment", wanted.amount, PI)
        return stripe.build(order, "confirm", KEY).body

    closing: list[StripePsp] = []
    wanted = payment("checkout-1", "pm_1")
    assert confirmation(wanted, None) == b"error_on_requires_action=true"
    assert confirmation(wanted, "https://shop/back") == b"return_url=https%3A%2F%2Fshop%2Fback"
    wanted.return_url = "app://here"
    assert confirmation(wanted, "https://shop/back") == b"return_url=app%3A%2F%2Fhere"
    for stripe in closing:
        await stripe.close()


@pytest.mark.parametrize(
    ("minor", "currency", "sent_as"),
    [(1234, "USD", "1234"), (500, "JPY", "500"), (5, "ISK", "500"), (5, "UGX", "500"), (500, "MGA", "5")],
)
def test_an_amount_is_counted_as_stripe_counts_it(minor: int, currency: str, sent_as: str) -> None:
    assert to_stripe(minor, currency) == sent_as
    assert from_stripe(int(sent_as), currency) == minor


def test_an_amount_that_stripe_does_not_have_is_never_rounded() -> None:
    assert to_stripe(512, "MGA") == "5.12"  # refused by Stripe: no integer
    assert from_stripe(512, "ISK") is None


@pytest.mark.parametrize(
    ("key", "live"), [("sk_live_1", False), ("rk_test_1", True), ("pk_test_1", False), ("", False)]
)
async def test_a_key_of_the_other_mode_is_refused_and_not_repeated(key: str, live: bool) -> None:
    with pytest.raises(ConfigurationError, match="mode") as caught:
        StripePsp(key, "https://api.stripe.com", 1.0, live=live)
    assert not key or key not in str(caught.value)


async def test_the_api_key_is_in_no_log_no_outcome_and_no_stored_request(
    stripe: StripePsp, answers: OneAnswer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    outcomes: list[object] = [stripe.build(execution_of(payment("checkout-1", "pm_1")), "create", KEY)]
    with structlog.testing.capture_logs() as logged:
        for status, document in ((200, PAID), (401, WRONG_API_KEY), (500, BROKEN), (402, {"error": API_KEY})):
            answers.gives(status, document)
            outcomes += [await sent(stripe, CONFIRM), await stripe.look_up(CONFIRM, PI)]
        answers.then = lambda request: request.transport.abort() if request.transport else None
        outcomes.append(await sent(stripe, CONFIRM))
    assert len(answers.seen) == 9
    assert caplog.records  # the library does log
    assert API_KEY not in f"{outcomes}{logged}{caplog.text}"
