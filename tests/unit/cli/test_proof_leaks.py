"""I8's scan: a secret or a card number is found wherever it stands, and named without being told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tollgate.cli.proof.leaks import CARD_NUMBER, LeakScan, configured_secrets
from tollgate.v1.payment_pb2 import MetadataEntry, Payment

SECRET = "tg_sk_0123456789abcdef"
CARD = "4111 1111 1111 1111"
scan = LeakScan({"the API key": SECRET, "nothing": ""})


def test_text_with_a_secret_or_a_card_number_is_named_and_other_text_is_not() -> None:
    assert scan.in_text(f'{{"token":"{SECRET}"}}'.encode()) == "the API key"
    assert scan.in_text(f'{{"note":"{CARD}"}}'.encode()) == CARD_NUMBER
    assert scan.in_text(b'{"at":"2026-11-28T02:22:05.728592Z","id":"4111111111111112"}') == ""
    assert scan.in_text(b"\xff\xfe 4111111111111111 \xff") == CARD_NUMBER


@pytest.mark.parametrize(
    "payment",
    [
        Payment(description=CARD + " " * 30),  # 49 long: its length is the byte of a digit, right before it
        Payment(customer_id="4111111111111111"),
        Payment(metadata=[MetadataEntry(key="k", value=CARD)]),
        Payment(metadata=[MetadataEntry(key=CARD, value="v")]),
        Payment(return_url=f"https://shop.example/?card={CARD.replace(' ', '-')}"),
    ],
)
def test_a_card_number_in_any_text_of_a_payment_is_found_in_its_binary_form(payment: Payment) -> None:
    assert scan.in_payment(payment.SerializeToString(), payment) == CARD_NUMBER


def test_fingerprints_and_traces_full_of_digits_are_no_card_numbers() -> None:
    payment = Payment(
        fingerprint=b"4111111111111111" * 2,
        traceparent="00-41111111111111110000000000000000-4111111111111111-01",
        description="two tickets",
    )
    assert scan.in_payment(payment.SerializeToString(), payment) == ""
    payment.description = SECRET
    assert scan.in_payment(payment.SerializeToString(), payment) == "the API key"


def test_the_settings_secrets_are_known_also_from_files(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("whsec_from_a_file\n")
    found = configured_secrets(
        {
            "TOLLGATE_PSP__STRIPE__API_KEY": "sk_test_1",
            "TOLLGATE_PSP__STRIPE__WEBHOOK_SECRET_FILE": str(file),
            "TOLLGATE_PSP__ADYEN__WEBHOOK_SECRET_FILE": str(tmp_path / "nowhere"),
            "TOLLGATE_SHARD__ID": "0",
            "HOME": "/",
        }
    )
    assert sorted(found.values()) == ["", "sk_test_1", "whsec_from_a_file"]
