"""Stripe's events are believed only with a signature of now, and only what is read of them goes further."""

from __future__ import annotations

import orjson
import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st

from tests.fixtures.stripe_shapes import card_error, event, payment_intent
from tollgate.errors import ConfigurationError
from tollgate.webhooks import VERIFIERS
from tollgate.webhooks.interface import REPLAY_WINDOW_S, Malformed, Unverified, Verified
from tollgate.webhooks.stripe import SIGNATURE, StripeWebhooks, signed_headers

SECRET, OTHER = "whsec_wRNftLajMZNeslQOP6vEPm4iVx5NlZ6z", "whsec_another"
VISIBLE = st.characters(min_codepoint=33, max_codepoint=126)
NOW_S = 1_686_089_970.5
PAID = event("payment_intent.succeeded", payment_intent(status="succeeded", amount_received=2000))
BODY = orjson.dumps(PAID)


def verified(headers: dict[str, str], body: bytes = BODY, now_s: float = NOW_S, *secrets: str) -> object:
    return StripeWebhooks(secrets or (SECRET,)).verify(headers, body, now_s)


def test_stripe_is_among_the_verifiers() -> None:
    assert VERIFIERS["stripe"] is StripeWebhooks


@given(body=st.text(), now_s=st.integers(0, 10**11 - 1), secret=st.text(VISIBLE, min_size=1))
def test_every_signature_is_one_that_stripes_library_expects(body: str, now_s: int, secret: str) -> None:
    header = signed_headers(secret, body.encode(), now_s)[SIGNATURE]
    assert stripe.WebhookSignature.verify_header(body, header, secret, tolerance=None)


def test_an_event_of_now_is_believed_under_any_secret_that_is_valid() -> None:
    for secret in (SECRET, OTHER):
        found = verified(signed_headers(secret, BODY, NOW_S), BODY, NOW_S, SECRET, OTHER)
        assert isinstance(found, Verified)
        assert found.events[0].event_id == PAID["id"]


def test_a_rolled_secret_signs_beside_the_new_one() -> None:
    old, new = (signed_headers(secret, BODY, NOW_S)[SIGNATURE] for secret in (OTHER, SECRET))
    both = (
        f"{old},{new.partition(',')[2]},v0=6ffbb59b2300aae63f272406069a9788598b792a944a07aba816edb039989a39"
    )
    assert isinstance(verified({SIGNATURE: both}), Verified)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "t=1686089970",
        "v1=00",
        "t=,v1=00",
        "t=1686089970,v1=",
        "t=1686089970,v1=00",
        "t=1686089970,t=1686089970,v1=00",
        "t=-5,v1=00",
        "t=²,v1=süß",
        "t=" + "9" * 400 + ",v1=00",
        ",".join(["t=1"] * 5000),
    ],
)
def test_no_header_but_a_signed_one_is_believed(header: str) -> None:
    assert isinstance(verified({SIGNATURE: header}), Unverified)


def test_another_body_secret_or_scheme_is_not_believed() -> None:
    headers = signed_headers(SECRET, BODY, NOW_S)
    assert isinstance(verified(headers, BODY.replace(b"2000", b"9000")), Unverified)
    assert isinstance(verified(headers, BODY, NOW_S, OTHER), Unverified)
    assert isinstance(verified({SIGNATURE: headers[SIGNATURE].replace("v1=", "v0=")}), Unverified)
    assert isinstance(verified({}), Unverified)


@pytest.mark.parametrize("late_s", [-REPLAY_WINDOW_S - 2, REPLAY_WINDOW_S + 2])
def test_an_event_of_another_time_is_not_believed(late_s: float) -> None:
    headers = signed_headers(SECRET, BODY, NOW_S)
    assert isinstance(verified(headers, BODY, NOW_S + late_s), Unverified)
    assert isinstance(verified(headers, BODY, NOW_S + late_s * 0.9), Verified)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"id":"evt_1"}', b"\xff", b'{"id":1,"type":"x","data":{}}']
)
def test_what_is_signed_and_no_event_is_malformed(body: bytes) -> None:
    assert isinstance(verified(signed_headers(SECRET, body, NOW_S), body), Malformed)


def test_an_id_that_no_store_can_hold_is_malformed() -> None:
    body = orjson.dumps(PAID | {"id": "evt 1"})
    assert isinstance(verified(signed_headers(SECRET, body, NOW_S), body), Malformed)


def test_the_payer_the_card_and_the_client_secret_go_no_further() -> None:
    refused = card_error("insufficient_funds", "No.", payment_intent())["error"]["payment_intent"]
    refused["last_payment_error"]["payment_method"] = {"billing_details": {"name": "Jenny Rosen"}}
    body = orjson.dumps(event("payment_intent.payment_failed", refused))
    found = verified(signed_headers(SECRET, body, NOW_S), body)
    assert isinstance(found, Verified)
    (kept,) = found.events
    assert b"_secret_" in body
    assert b"_secret_" not in kept.body
    assert b"Jenny" not in kept.body
    assert (
        orjson.loads(kept.body)["data"]["object"]["last_payment_error"]["decline_code"]
        == "insufficient_funds"
    )


@pytest.mark.parametrize("secret", ["", " ", "whsec_\n", "whsec_ü"])
def test_a_secret_that_is_none_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        StripeWebhooks([SECRET, secret])
    assert SECRET not in str(caught.value)
