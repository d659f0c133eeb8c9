"""What each of Adyen's notification items says, in the shapes of Adyen's own description of them."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.psp.adyen.notifications import read_adyen_notification
from processor.psp.interface import Approved, Declined, Done, OperationKind
from processor.psp.webhook import Irrelevant, Reading, Report, Subject, Unreadable

KEY = "a1" * 32
PAYMENT, CAPTURE, CANCEL, REFUND = OperationKind
OF_OURS = Subject(request_key=KEY)


def read(code: str, *, success: bool = True, reference: str = KEY, **changed: object) -> Reading:
    item = {
        "pspReference": "QFQTPCQ8HXSKGK82",
        "originalReference": "9913140798220028",
        "merchantAccountCode": "TollgateECOM",
        "merchantReference": reference,
        "amount": {"value": 1000, "currency": "EUR"},
        "eventCode": code,
        "success": "true" if success else "false",
        "reason": "" if success else "Insufficient balance on payment",
    }
    return read_adyen_notification(orjson.dumps(item | changed))


@pytest.mark.parametrize(("how", "captured"), [("auto", True), ("manual", False)])
def test_an_authorisation_is_the_payments_approval(how: str, captured: bool) -> None:
    approved = Approved("QFQTPCQ8HXSKGK82", 1000, "EUR", captured=captured)
    assert read("AUTHORISATION", reference=f"{KEY}-{how}") == Report(OF_OURS, PAYMENT, approved)


def test_a_refused_authorisation_is_declined_with_the_code_of_an_answer() -> None:
    reading = read("AUTHORISATION", success=False, reference=f"{KEY}-auto", reason="Not enough balance")
    declined = Declined("insufficient_funds", "Not enough balance", "QFQTPCQ8HXSKGK82")
    assert reading == Report(OF_OURS, PAYMENT, declined)


def test_an_offer_that_closed_is_a_payer_who_did_not_come() -> None:
    declined = Declined(
        "action_expired", "The payer did not complete the payment in time.", "QFQTPCQ8HXSKGK82"
    )
    assert read("OFFER_CLOSED", reference=f"{KEY}-auto") == Report(OF_OURS, PAYMENT, declined)
    assert isinstance(read("OFFER_CLOSED", success=False), Irrelevant)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("CAPTURE", CAPTURE),
        ("CANCELLATION", CANCEL),
        ("TECHNICAL_CANCEL", CANCEL),
        ("EXPIRE", CANCEL),
        ("REFUND", REFUND),
    ],
)
def test_a_modification_is_done_or_declined(code: str, kind: OperationKind) -> None:
    assert read(code) == Report(OF_OURS, kind, Done("QFQTPCQ8HXSKGK82", 1000, "EUR"))
    words = "Insufficient balance on payment"
    declined = Declined("insufficient_balance_on_payment", words, "QFQTPCQ8HXSKGK82")
    assert read(code, success=False) == Report(OF_OURS, kind, declined)


@pytest.mark.parametrize(
    ("code", "kind"), [("CAPTURE_FAILED", CAPTURE), ("REFUND_FAILED", REFUND), ("REFUNDED_REVERSED", REFUND)]
)
def test_a_failure_that_happened_is_a_decline(code: str, kind: OperationKind) -> None:
    declined = Declined(f"{kind}_failed", "The PSP gave no reason.", "QFQTPCQ8HXSKGK82")
    assert read(code) == Report(OF_OURS, kind, declined)
    assert isinstance(read(code, success=False), Irrelevant)


def test_the_capture_of_a_payment_that_is_captured_by_itself_is_no_news() -> None:
    assert isinstance(read("CAPTURE", reference=f"{KEY}-auto"), Irrelevant)
    by_hand_at_adyen = read("CAPTURE", reference=f"{KEY}-manual")
    assert by_hand_at_adyen == Report(OF_OURS, CAPTURE, Done("QFQTPCQ8HXSKGK82", 1000, "EUR"))


def test_amounts_are_read_in_isos_minor_units() -> None:
    reading = read("REFUND", amount={"value": 100_000, "currency": "ISK"})
    assert reading == Report(OF_OURS, REFUND, Done("QFQTPCQ8HXSKGK82", 1000, "ISK"))


def test_what_decides_nothing_is_irrelevant_and_what_nobody_asked_for_is_told_to_a_person() -> None:
    assert isinstance(read("REPORT_AVAILABLE"), Irrelevant)
    assert isinstance(read("CHARGEBACK"), Irrelevant)
    assert isinstance(read("CANCEL_OR_REFUND"), Unreadable)


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount": {"value": "1000", "currency": "EUR"}},
        {"amount": None},
        {"merchantReference": None},
        {"pspReference": "a\0b"},
    ],
)
def test_what_is_not_as_documented_is_unreadable(wrong: dict[str, object]) -> None:
    item = {"pspReference": "Q1", "merchantReference": KEY, "amount": {"value": 1, "currency": "EUR"}}
    said = {**item, "eventCode": "CAPTURE", "success": "true", "reason": ""}
    assert isinstance(read_adyen_notification(orjson.dumps(said)), Report)
    assert isinstance(read_adyen_notification(orjson.dumps(said | wrong)), Unreadable)


@given(body=st.binary(max_size=60))
def test_a_reader_never_raises(body: bytes) -> None:
    assert isinstance(read_adyen_notification(body), Unreadable)
