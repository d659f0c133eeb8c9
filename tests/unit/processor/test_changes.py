"""What intake can read, and what it sets aside."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.changes import Refused, parse
from processor.storage.intake import Acceptance, ReceivedWebhook
from tests.fixtures.changes import NOW_US, accepted_payment, change_record
from tollgate.v1.change_pb2 import Change, Webhook


def test_an_acceptance_becomes_version_one_and_keeps_where_it_came_from() -> None:
    record = change_record(accepted_payment(), shard=3, sequence=42)
    parsed = parse(record, NOW_US + 7)
    assert isinstance(parsed, Acceptance)
    assert (parsed.payment.version, parsed.payment.updated_at_us) == (1, NOW_US + 7)
    assert (parsed.origin.shard, parsed.origin.sequence) == (3, 42)
    assert parsed.shipped == accepted_payment().SerializeToString()


def test_a_webhook_is_kept_raw() -> None:
    change = Change(key="simulator/evt_1", sequence=1)
    change.webhook.CopyFrom(Webhook(psp="simulator", event_id="evt_1", body=b"{ }", received_at_us=NOW_US))
    record = replace(
        change_record(accepted_payment()), key=b"simulator/evt_1", value=change.SerializeToString()
    )
    assert parse(record, NOW_US) == ReceivedWebhook("simulator", "evt_1", b"{ }", NOW_US)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("amount", 0),
        ("amount", 100_000_000_000),
        ("currency", "usd"),
        ("checkout_id", "short"),
        ("merchant", "Acme"),
        ("fingerprint", b"short"),
        ("payment_method", ""),
        ("psp", ""),
        ("capture", 0),
        ("expires_at_us", 2**62),
        ("created_at_us", 0),
    ],
)
def test_what_admission_would_not_have_accepted_is_refused(field: str, value: object) -> None:
    payment = accepted_payment()
    setattr(payment, field, value)
    assert isinstance(parse(change_record(payment), NOW_US), Refused)


def test_a_key_of_another_payment_is_refused() -> None:
    record = replace(change_record(accepted_payment()), key=b"acme/checkout-0002")
    assert isinstance(parse(record, NOW_US), Refused)


@given(st.binary(max_size=300))
def test_no_bytes_whatever_break_the_parser(value: bytes) -> None:
    record = replace(change_record(accepted_payment()), value=value)
    assert isinstance(parse(record, NOW_US), Refused)
