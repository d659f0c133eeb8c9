"""Adyen's notification items are believed only with a signature of Adyen's over what is believed of them."""

from __future__ import annotations

import Adyen.util
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fixtures.adyen_double import HMAC_KEY, notification
from tollgate.errors import ConfigurationError
from tollgate.webhooks import VERIFIERS
from tollgate.webhooks.adyen import AdyenWebhooks, signed
from tollgate.webhooks.interface import Unverified, Verified

OTHER_KEY = "AB" * 32
# As Adyen's own library has it in its tests, with the signature that it expects.
ITEM = {
    "pspReference": "7914073381342284",
    "merchantReference": "TestPayment-1407325143704",
    "merchantAccountCode": "TestMerchant",
    "amount": {"currency": "EUR", "value": 1130},
    "eventCode": "AUTHORISATION",
    "success": "true",
    "eventDate": "2019-05-06T17:15:34.121+02:00",
    "operations": ["CANCEL", "CAPTURE", "REFUND"],
    "paymentMethod": "visa",
}
SIGNATURE = "coqCmt/IZ4E3CzPvMY8zTjQVL5hYJUiBRg8UU+iCWo0="

texts = st.text(st.characters(exclude_characters=":", codec="utf-8"), max_size=20)


def verified(body: bytes, *keys: str) -> object:
    return AdyenWebhooks(keys or (HMAC_KEY,)).verify({}, body, now_s=0.0)


def test_the_signature_is_the_one_that_adyens_library_expects() -> None:
    assert signed(ITEM, HMAC_KEY)["additionalData"] == {"hmacSignature": SIGNATURE}


@given(
    references=st.tuples(texts, texts, texts, texts),
    value=st.integers(0, 10**13),
    currency=texts,
    code=texts,
    success=st.sampled_from(["true", "false"]),
)
def test_every_signature_is_the_one_that_adyens_library_makes(
    references: tuple[str, str, str, str], value: int, currency: str, code: str, success: str
) -> None:
    names = ("pspReference", "originalReference", "merchantAccountCode", "merchantReference")
    item = {
        **dict(zip(names, references, strict=True)),
        "amount": {"value": value, "currency": currency},
        "eventCode": code,
        "success": success,
    }
    theirs = Adyen.util.generate_notification_sig(item, HMAC_KEY).decode()
    assert signed(item, HMAC_KEY)["additionalData"]["hmacSignature"] == theirs


def test_each_item_of_a_request_is_an_event_of_its_own() -> None:
    capture = {**ITEM, "eventCode": "CAPTURE", "pspReference": "8825408195409505", "success": "false"}
    outcome = verified(notification(ITEM, capture))
    assert isinstance(outcome, Verified)
    assert [event.event_id for event in outcome.events] == [
        "AUTHORISATION:7914073381342284:true",
        "CAPTURE:8825408195409505:false",
    ]
    assert AdyenWebhooks([HMAC_KEY]).acknowledgement.body == b"[accepted]"


@pytest.mark.parametrize(
    "forged",
    [
        {"pspReference": "7914073381342285"},
        {"originalReference": "7914073381342284"},
        {"merchantReference": "TestPayment-2"},
        {"merchantAccountCode": "Another"},
        {"amount": {"currency": "EUR", "value": 1131}},
        {"amount": {"currency": "USD", "value": 1130}},
        {"eventCode": "REFUND"},
        {"success": "false"},
        {"additionalData": {"hmacSignature": SIGNATURE.lower()}},
        {"additionalData": {"hmacSignature": "süß"}},
        {"additionalData": {}},
        {"additionalData": None},
    ],
)
def test_a_request_with_one_item_that_is_not_signed_as_it_stands_is_nobodys_word(
    forged: dict[str, object],
) -> None:
    good = {**ITEM, "additionalData": {"hmacSignature": SIGNATURE}}
    items = [{"NotificationRequestItem": item} for item in (good, good | forged)]
    assert isinstance(verified(orjson.dumps({"notificationItems": items[:1]})), Verified)
    assert isinstance(verified(orjson.dumps({"notificationItems": items})), Unverified)


def test_the_text_of_one_field_can_not_be_moved_into_the_next() -> None:
    """`a` and `b:c` are signed like `a:b` and `c`."""
    item = {**ITEM, "merchantReference": "order:7:1130:EUR"}
    moved = {**item, "merchantAccountCode": "TestMerchant:order", "merchantReference": "7:1130:EUR"}
    signature = signed(item, HMAC_KEY)["additionalData"]
    bodies = [
        orjson.dumps(
            {"notificationItems": [{"NotificationRequestItem": {**found, "additionalData": signature}}]}
        )
        for found in (item, moved)
    ]
    assert isinstance(verified(bodies[0]), Verified)
    assert isinstance(verified(bodies[1]), Unverified)


def test_every_key_that_is_valid_now_may_sign() -> None:
    assert isinstance(verified(notification(ITEM, key=OTHER_KEY), HMAC_KEY, OTHER_KEY), Verified)
    assert isinstance(verified(notification(ITEM, key=OTHER_KEY), HMAC_KEY), Unverified)


def test_what_is_not_signed_goes_no_further() -> None:
    more = {"cardSummary": "1111", "expiryDate": "03/2030", "shopperEmail": "s.hopper@test.example"}
    outcome = verified(notification({**ITEM, "reason": "033899:1111:03/2030", "additionalData": more}))
    assert isinstance(outcome, Verified)
    (event,) = outcome.events
    kept = orjson.loads(event.body)
    assert set(kept) == {
        *("pspReference", "originalReference", "merchantAccountCode", "merchantReference"),
        *("amount", "eventCode", "success", "reason"),
    }
    assert kept["reason"] == ""
    assert b"1111" not in event.body


@given(body=st.binary(max_size=60))
def test_what_is_no_notification_is_nobodys_word(body: bytes) -> None:
    assert isinstance(verified(body), Unverified)


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"notificationItems": []},
        {"notificationItems": {"NotificationRequestItem": ITEM}},
        {"notificationItems": [ITEM]},
        {"notificationItems": [{"NotificationRequestItem": "text"}]},
        {"notificationItems": [{"NotificationRequestItem": {**ITEM, "amount": {"value": True}}}]},
        {"notificationItems": [{"NotificationRequestItem": {**ITEM, "success": {"a": 1}}}]},
        {"notificationItems": [{"NotificationRequestItem": signed(ITEM, HMAC_KEY)}] * 65},
    ],
)
def test_what_has_another_shape_is_nobodys_word(body: object) -> None:
    assert isinstance(verified(orjson.dumps(body)), Unverified)


@pytest.mark.parametrize("secret", ["", "AB12", "not hex at all, and long enough", "whsec_YWJj"])
def test_a_key_that_is_none_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        VERIFIERS["adyen"]([HMAC_KEY, secret])
    assert not secret or secret not in caught.value.message
