"""What is written by hand must mean what protobuf means, for every payment that admission lets through."""

from __future__ import annotations

import hashlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.admission import Admitted, PaymentRequest
from gateway.wire import accepted_payment, change_of_acceptance
from tollgate.money import AMOUNT_MAX
from tollgate.v1.change_pb2 import Change
from tollgate.v1.payment_pb2 import Capture, MetadataEntry, Payment, Status
from tollgate.varint import varint


def texts(most: int, least: int = 0) -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=["Cs"]), min_size=least, max_size=most)


requests = st.fixed_dictionaries(
    {
        "amount": st.integers(1, AMOUNT_MAX),
        "currency": st.sampled_from(["EUR", "JPY", "USD"]),
        "payment_method": texts(255, least=1),
    },
    optional={
        "capture": st.sampled_from(["automatic", "manual"]),
        "psp": st.sampled_from(["simulator", "stripe"]),
        "customer_id": texts(64),
        "description": texts(500),
        "return_url": texts(2048),
        "metadata": st.dictionaries(
            texts(40),
            texts(500),
            max_size=20,
        ),
    },
)
checkout_ids = st.from_regex(r"[A-Za-z0-9_-]{8,64}", fullmatch=True)
traceparents = st.from_regex(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", fullmatch=True)
moments = st.integers(0, 2**62)


@given(requests, checkout_ids, traceparents, moments, moments)
def test_a_payment_written_by_hand_is_the_one_that_protobuf_would_write(
    fields: dict[str, Any], checkout_id: str, traceparent: str, now_us: int, expires_at_us: int
) -> None:
    fingerprint = hashlib.sha256(checkout_id.encode()).digest()
    admitted = Admitted(PaymentRequest(**fields), fingerprint)
    written = accepted_payment(
        "demo", fields.get("psp", "simulator"), checkout_id, admitted, traceparent, now_us, expires_at_us
    )
    manual = fields.get("capture") == "manual"
    assert Payment.FromString(written) == Payment(
        merchant="demo",
        checkout_id=checkout_id,
        status=Status.STATUS_PENDING,
        amount=fields["amount"],
        currency=fields["currency"],
        capture=Capture.CAPTURE_MANUAL if manual else Capture.CAPTURE_AUTOMATIC,
        payment_method=fields["payment_method"],
        psp=fields.get("psp", "simulator"),
        customer_id=fields.get("customer_id", ""),
        description=fields.get("description", ""),
        return_url=fields.get("return_url", ""),
        metadata=[MetadataEntry(key=key, value=value) for key, value in fields.get("metadata", {}).items()],
        fingerprint=fingerprint,
        traceparent=traceparent,
        created_at_us=now_us,
        updated_at_us=now_us,
        expires_at_us=expires_at_us,
    )


@given(st.text("abc_/-", max_size=100), st.integers(1, 2**63), moments, traceparents, st.integers(0, 50_000))
def test_a_change_written_by_hand_is_the_one_that_protobuf_would_write(
    key: str, sequence: int, committed_at_us: int, traceparent: str, size: int
) -> None:
    origin = Change(shard=3, incarnation=bytes(range(16)), epoch=7)
    payment = Payment(description="d" * size)
    written = change_of_acceptance(
        origin.SerializeToString(), key, sequence, committed_at_us, traceparent, payment.SerializeToString()
    )
    expected = Change(
        shard=3,
        incarnation=bytes(range(16)),
        epoch=7,
        key=key,
        sequence=sequence,
        committed_at_us=committed_at_us,
        traceparent=traceparent,
        acceptance=payment,
    )
    assert Change.FromString(written) == expected


@given(st.integers(0, 2**64 - 1))
def test_a_varint_is_read_back_as_the_number_that_it_was(value: int) -> None:
    assert Change.FromString(b"\x28" + varint(value)).sequence == value  # field 5


def test_the_longest_texts_of_four_byte_characters_fit() -> None:
    wide = "\N{FACE WITH TEARS OF JOY}"
    request = PaymentRequest(
        amount=AMOUNT_MAX,
        currency="EUR",
        payment_method=wide * 255,
        customer_id=wide * 64,
        description=wide * 500,
        return_url=wide * 2048,
        metadata={f"{number:02}" + wide * 38: wide * 500 for number in range(20)},
    )
    written = accepted_payment("demo", "simulator", "c" * 64, Admitted(request, bytes(32)), "", 0, 0)
    payment = Payment.FromString(written)
    assert payment.return_url == wide * 2048
    assert {entry.key: entry.value for entry in payment.metadata} == request.metadata
