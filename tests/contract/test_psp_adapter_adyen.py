"""What Adyen's adapter sends and makes of answers, beside what every adapter does: Adyen's documented shapes,
and what no answer may be taken for.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.psp.adyen.adapter import AdyenPsp
from processor.psp.adyen.answers import interpret
from processor.psp.adyen.library import AdyenAccount, AdyenLibrary
from processor.psp.adyen.money import adyens_value, amount_in
from processor.psp.adyen.orders import CANCEL, CAPTURE, PAY, REFUND
from processor.psp.adyen.refusals import refusal_code
from processor.psp.interface import (
    ActionRequired,
    Approved,
    Awaited,
    Declined,
    OperationKind,
    Outcome,
    PspRequest,
    Retryable,
    Unknown,
)
from tests.contract.psp_doubles import execution_of, operation_of, payment, request_of
from tests.fixtures.adyen_double import API_KEY, MERCHANT_ACCOUNT, AdyenDouble
from tollgate.v1.payment_pb2 import Capture, Payment

KEY = "a1" * 32
RETURN_URL = "https://shop.example/back"
LIVE_PREFIX = "1797a841fbb37ca7-Tollgate"
SENT = {
    "merchantAccount": MERCHANT_ACCOUNT,
    "reference": f"{KEY}-auto",
    "amount": {"currency": "EUR", "value": 1000},
}
PAYMENT = PspRequest("POST", "/v72/payments", KEY, orjson.dumps(SENT))
CAPTURE_REQUEST = PspRequest(
    "POST",
    "/v72/payments/993617894903480A/captures",
    KEY,
    orjson.dumps({**SENT, "reference": KEY}),
)
# As Adyen's own description of the API shows them (github.com/Adyen/adyen-openapi, CheckoutService-v72).
AUTHORISED = {
    "additionalData": {"authCode": "044925", "refusalReasonRaw": "AUTHORISED"},
    "pspReference": "993617895204576J",
    "resultCode": "Authorised",
    "merchantReference": f"{KEY}-auto",
}
REDIRECT = {
    "pspReference": "JLCMPCQ8HXSKGK82",
    "resultCode": "RedirectShopper",
    "action": {
        "paymentMethodType": "scheme",
        "url": "https://checkoutshopper-test.adyen.com/checkoutshopper/threeDS2.shtml?pasp=1",
        "method": "GET",
        "type": "redirect",
    },
}
RECEIVED = {
    "merchantAccount": MERCHANT_ACCOUNT,
    "paymentPspReference": "993617894903480A",
    "reference": KEY,
    "pspReference": "993617894906488A",
    "status": "received",
    "amount": {"value": 1000, "currency": "EUR"},
}


def outcome_of(
    status: int, document: object, headers: dict[str, str] | None = None, request: PspRequest = PAYMENT
) -> Outcome:
    return interpret(request, status, headers or {}, orjson.dumps(document))


@pytest.fixture
async def adyen() -> AsyncIterator[AdyenDouble]:
    double = AdyenDouble()
    await double.start()
    yield double
    await double.stop()


@pytest.fixture
async def psp(adyen: AdyenDouble) -> AsyncIterator[AdyenPsp]:
    made = AdyenPsp(AdyenAccount(API_KEY, MERCHANT_ACCOUNT, RETURN_URL, url=adyen.url), timeout_s=1.0)
    yield made
    await made.close()


def test_an_authorised_payment_is_approved_as_it_was_ordered() -> None:
    assert outcome_of(200, AUTHORISED) == Approved("993617895204576J", 1000, "EUR", captured=True)
    by_hand = orjson.dumps({**SENT, "reference": f"{KEY}-manual"})
    outcome = outcome_of(
        200,
        {**AUTHORISED, "merchantReference": f"{KEY}-manual"},
        request=PspRequest("POST", "/v72/payments", KEY, by_hand),
    )
    assert outcome == Approved("993617895204576J", 1000, "EUR", captured=False)


def test_another_amount_is_told_as_it_is() -> None:
    part = {**AUTHORISED, "resultCode": "PartiallyAuthorised", "amount": {"currency": "EUR", "value": 900}}
    assert outcome_of(200, part) == Approved("993617895204576J", 900, "EUR", captured=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"merchantReference": f"{'b2' * 32}-auto"},
        {"amount": {"currency": "EUR", "value": "1000"}},
        {"amount": {"currency": "EUR"}},
        {"amount": None},
        {"pspReference": None},
        {"pspReference": "../../payments"},
        {"resultCode": "AuthenticationFinished"},
        {"resultCode": "ChallengeShopper"},
        {"resultCode": None},
    ],
)
def test_an_answer_about_anything_else_is_unknown(wrong: dict[str, object]) -> None:
    assert isinstance(outcome_of(200, AUTHORISED | wrong), Unknown)


def test_a_redirect_is_an_action_of_the_payer_where_a_link_is_enough() -> None:
    url = "https://checkoutshopper-test.adyen.com/checkoutshopper/threeDS2.shtml?pasp=1"
    assert outcome_of(200, REDIRECT) == ActionRequired("JLCMPCQ8HXSKGK82", url)
    posted = REDIRECT | {"action": {"type": "redirect", "method": "POST", "url": url, "data": {"MD": "1"}}}
    assert isinstance(outcome_of(200, posted), Unknown)
    script = REDIRECT | {"action": {"type": "threeDS2", "token": "eyJ0"}}
    assert isinstance(outcome_of(200, script), Unknown)


@pytest.mark.parametrize("result", ["Received", "Pending", "PresentToShopper"])
def test_a_payment_whose_result_comes_later_is_awaited(result: str) -> None:
    assert outcome_of(200, AUTHORISED | {"resultCode": result}) == Awaited("993617895204576J")


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("Not enough balance", "insufficient_funds"),
        ("Expired Card", "expired_card"),
        ("FRAUD-CANCELLED", "suspected_fraud"),
        ("3D Not Authenticated", "authentication_failed"),
        ("Some words\x00 of next year", "some_words_of_next_year"),
    ],
)
def test_a_refusal_has_a_code_that_a_client_can_read(reason: str, code: str) -> None:
    refused = {**AUTHORISED, "resultCode": "Refused", "refusalReason": reason, "refusalReasonCode": "12"}
    outcome = outcome_of(200, refused)
    assert outcome == Declined(code, reason.replace("\0", ""), "993617895204576J")
    assert refusal_code("…", "psp_error") == "psp_error"


def test_a_modification_is_received_and_no_more() -> None:
    assert outcome_of(201, RECEIVED, request=CAPTURE_REQUEST) == Awaited("993617894906488A")


@pytest.mark.parametrize(
    "wrong",
    [
        {"paymentPspReference": "993617894903481B"},
        {"reference": "b2" * 32},
        {"amount": {"value": 999, "currency": "EUR"}},
        {"status": "done"},
        {"pspReference": ""},
    ],
)
def test_a_modification_of_anything_else_is_unknown(wrong: dict[str, object]) -> None:
    assert isinstance(outcome_of(201, RECEIVED | wrong, request=CAPTURE_REQUEST), Unknown)


def test_what_adyen_documents_as_not_processed_comes_again_or_is_refused() -> None:
    assert outcome_of(429, {}, {"Retry-After": "3"}) == Retryable("the PSP answered 429", 3.0)
    for status in (401, 403):
        assert isinstance(outcome_of(status, {"errorCode": "000"}), Retryable)
    refused = {"status": 422, "errorCode": "14_030", "message": "Return URL is missing."}
    assert outcome_of(422, refused) == Declined("psp_refused_14_030", "Return URL is missing.")


@pytest.mark.parametrize("status", [400, 422])
def test_a_request_still_on_its_way_or_a_passing_error_is_unknown(status: int) -> None:
    busy = {"errorCode": "704", "message": "request already processed or in progress"}
    assert isinstance(outcome_of(status, busy), Unknown)
    assert isinstance(outcome_of(status, {"errorCode": "905"}, {"transient-error": "true"}), Unknown)


@given(status=st.integers(100, 599), answer=st.binary(max_size=40))
def test_an_unreadable_answer_is_never_an_approval_nor_a_decline(status: int, answer: bytes) -> None:
    for request in (PAYMENT, CAPTURE_REQUEST):
        outcome = interpret(request, status, {}, answer)
        assert isinstance(outcome, Retryable if status in (401, 403, 429) else Unknown)


@pytest.mark.parametrize(
    ("amount", "currency", "value"),
    [
        (1000, "EUR", 1000),
        (1000, "JPY", 1000),
        (1000, "ISK", 100_000),
        (1000, "CLP", 100_000),
        (150_000, "IDR", 1500),
        (150_050, "IDR", None),
        (1, "CVE", None),
    ],
)
def test_amounts_are_in_adyens_minor_units_and_come_back_in_isos(
    amount: int, currency: str, value: int | None
) -> None:
    assert adyens_value(amount, currency) == value
    if value is not None:
        assert amount_in({"value": value, "currency": currency}) == (amount, currency)


def test_fractions_of_an_isk_at_adyen_are_no_amount_of_ours() -> None:
    assert amount_in({"value": 100_050, "currency": "ISK"}) is None


async def test_an_amount_that_adyen_cannot_express_is_refused_and_never_sent(
    psp: AdyenPsp, adyen: AdyenDouble
) -> None:
    order = execution_of(payment("checkout-1", "approves", amount=150_050, currency="IDR"))
    outcome = await psp.send(request_of(psp, order, PAY), "")
    assert isinstance(outcome, Declined)
    assert outcome.code == "invalid_amount"
    assert adyen.calls == []


def test_the_library_says_where_a_step_goes_in_test_and_live() -> None:
    test = AdyenLibrary(AdyenAccount(API_KEY, MERCHANT_ACCOUNT, RETURN_URL))
    live = AdyenLibrary(AdyenAccount(API_KEY, MERCHANT_ACCOUNT, RETURN_URL, live_prefix=LIVE_PREFIX))
    hosts = {
        test: "https://checkout-test.adyen.com",
        live: f"https://{LIVE_PREFIX}-checkout-live.adyenpayments.com/checkout",
    }
    for library, host in hosts.items():
        addresses = []
        for step, reference in ((PAY, ""), (CAPTURE, "R1"), (REFUND, "R1"), (CANCEL, "R1"), (CANCEL, "")):
            request = PspRequest("POST", library.path_of(step, reference), KEY, b"{}")
            addresses.append(library.outgoing(request).url)
        version = addresses[0].removeprefix(host).split("/")[1]
        ways = ("", "/R1/captures", "/R1/refunds", "/R1/cancels")
        assert addresses[:4] == [f"{host}/{version}/payments{way}" for way in ways]
        assert addresses[4] == f"{host}/{version}/cancels"


async def test_the_stored_bytes_and_key_go_out_as_they_are(psp: AdyenPsp, adyen: AdyenDouble) -> None:
    built = request_of(psp, execution_of(payment("checkout-1", "approves")), PAY)
    odd = PspRequest("POST", built.path, built.idempotency_key, b" \n" + built.body)
    assert isinstance(await psp.send(odd, "00-trace"), Approved)
    (call,) = adyen.calls
    assert (call.path, call.key, call.body) == (built.path, built.idempotency_key, b" \n" + built.body)
    assert call.headers["Content-Type"] == "application/json"
    assert call.headers["adyen-library-name"] == "adyen-python-api-library"
    assert "00-trace" not in call.headers.values()


async def test_a_send_is_one_send_also_when_a_kept_connection_breaks(
    psp: AdyenPsp, adyen: AdyenDouble
) -> None:
    for behaviour, outcome in (("approves", Approved), ("resets", Unknown)):
        request = request_of(psp, execution_of(payment(f"checkout-{behaviour}", behaviour)), PAY)
        assert isinstance(await psp.send(request, ""), outcome)
    assert [call.path for call in adyen.calls] == [request.path] * 2


def test_a_payment_says_how_it_is_captured_who_pays_and_what_it_is_called(psp: AdyenPsp) -> None:
    wanted = payment("checkout-1", "M5N7TQ4TG5PFWR50", Capture.CAPTURE_MANUAL, 1000, "EUR")
    wanted.customer_id, wanted.return_url = "customer-1", "https://shop.example/order/1"
    sent = orjson.loads(psp.build(execution_of(wanted), PAY, KEY).body)
    assert sent["reference"] == f"{KEY}-manual"
    assert len(sent["reference"]) <= 80
    assert sent["additionalData"] == {"manualCapture": "true"}
    assert sent["paymentMethod"] == {"type": "scheme", "storedPaymentMethodId": "M5N7TQ4TG5PFWR50"}
    assert (sent["shopperReference"], sent["returnUrl"]) == ("customer-1", "https://shop.example/order/1")
    assert sent["merchantOrderReference"] == "demo/checkout-1"
    automatic = orjson.loads(psp.build(execution_of(payment("checkout-1", "M5N7")), PAY, KEY).body)
    assert (automatic["captureDelayHours"], automatic["returnUrl"]) == (0, RETURN_URL)


async def test_a_payment_that_adyen_gave_no_reference_is_canceled_by_ours(
    psp: AdyenPsp, adyen: AdyenDouble
) -> None:
    waiting = payment("checkout-1", "redirects")
    assert isinstance(await psp.send(request_of(psp, execution_of(waiting), PAY), ""), ActionRequired)
    waiting.psp_reference = ""
    cancel = request_of(psp, operation_of(waiting, OperationKind.CANCEL), CANCEL)
    assert isinstance(await psp.send(cancel, ""), Awaited)
    (held,) = adyen.payments.values()
    assert held.status == "cancelled"


async def test_nothing_that_can_be_printed_holds_the_api_key(
    psp: AdyenPsp, adyen: AdyenDouble, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    account = AdyenAccount(API_KEY, MERCHANT_ACCOUNT, RETURN_URL)
    said: list[object] = [account, psp, AdyenLibrary(account).outgoing(PAYMENT)]
    requests = []
    for behaviour in ("approves", "refuses", "busy", "silent", "resets"):
        requests.append(request_of(psp, execution_of(payment(f"checkout-{behaviour}", behaviour)), PAY))
        said += [requests[-1], await psp.send(requests[-1], "")]
    adyen.fails = True
    said.append(await psp.send(requests[0], ""))
    await adyen.stop()
    said.append(await psp.send(requests[0], ""))
    assert {type(outcome) for outcome in said} >= {Approved, Declined, Retryable, Unknown}
    assert API_KEY not in repr(said)
    assert API_KEY not in caplog.text
    assert all(call.headers["x-api-key"] == API_KEY for call in adyen.calls)


async def test_a_wrong_key_of_ours_is_no_refusal_of_the_payment(adyen: AdyenDouble) -> None:
    psp = AdyenPsp(AdyenAccount("AQE-another", MERCHANT_ACCOUNT, RETURN_URL, url=adyen.url), timeout_s=1.0)
    request = request_of(psp, execution_of(payment("checkout-1", "approves")), PAY)
    assert isinstance(await psp.send(request, ""), Retryable)
    await psp.close()
    assert adyen.effects == []


async def test_adyen_cannot_be_asked(psp: AdyenPsp) -> None:
    assert not psp.plan.can_be_asked
    assert await psp.ask(Payment(psp_reference="R1")) == Unknown(
        "Adyen tells how a payment stands by notifications alone", "R1"
    )
    assert isinstance(await psp.look_up(PAYMENT, ""), Unknown)
