from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admission import CHECKOUT_ID_HEADER, Admitted, admit
from gateway.strict_json import Rejected
from tollgate.money import AMOUNT_MAX

PSPS = frozenset({"simulator", "stripe"})
GOOD: dict[str, Any] = {"amount": 1200, "currency": "USD", "payment_method": "pm_ok"}
PAN = "4111111111111111"
WRONG_AMOUNTS: list[object] = [0, -1, AMOUNT_MAX + 1, 1.0, 12.5, True, "1200", None, [], 10**30]
WRONG_METADATA: list[object] = [{"k": 1}, {"k" * 41: "v"}, {"k": "v" * 501}, [], "x", {"k": None}]


def decide(body: object, checkout_id: str = "order-0001") -> Admitted | Rejected:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return admit(raw, checkout_id, PSPS)


def wrong_fields(body: object, checkout_id: str = "order-0001") -> set[str]:
    decision = decide(body, checkout_id)
    assert isinstance(decision, Rejected), "it was admitted"
    return {problem.field for problem in decision.problems}


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"amount": 1},
        {"amount": AMOUNT_MAX},
        {"currency": "KWD"},
        {"payment_method": "p" * 255},
        {"capture": "manual"},
        {"psp": "stripe"},
        {"customer_id": "c" * 64, "description": "é" * 500, "return_url": "u" * 2048},
        {"metadata": {f"{i:040d}": "v" * 500 for i in range(20)}},
        {"metadata": {}},
        {"payment_checkout_id": "order-0001"},
        {"description": "a:b::c", "metadata": {"a:": ":"}},
        {"description": "tab\tand \\ and \u2028"},
        {"description": "2026-11-21T10:00:00Z 1763720000000 123e4567-e89b-42d3-a456-426614174000"},
        dict.fromkeys(("capture", "psp", "customer_id", "description", "return_url", "metadata")),
    ],
)
def test_what_the_table_allows_is_admitted(extra: dict[str, Any]) -> None:
    assert isinstance(decide(GOOD | extra), Admitted)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("amount", v) for v in WRONG_AMOUNTS),
        *(("currency", v) for v in ("usd", "US", "USD\n", " USD", "XAU", "ZZZ", 840, None, "")),
        *(("payment_method", v) for v in ("", "p" * 256, 1, None)),
        *(("capture", v) for v in ("Automatic", "", True)),
        *(("psp", v) for v in ("adyen", "", 1, "Stripe")),
        ("customer_id", "c" * 65),
        ("description", "d" * 501),
        ("return_url", "u" * 2049),
        *(("metadata", v) for v in WRONG_METADATA),
        ("metadata", {str(i): "v" for i in range(21)}),
        ("metadata", {"k": {"nested": "v"}}),
        ("payment_checkout_id", "order-0002"),
        ("colour", "red"),
        ("cvv", "123"),
    ],
)
def test_a_wrong_field_is_refused_and_named(field: str, value: object) -> None:
    assert wrong_fields(GOOD | {field: value}) == {field}


@pytest.mark.parametrize("field", ["amount", "currency", "payment_method"])
def test_a_missing_field_is_named(field: str) -> None:
    body = {name: value for name, value in GOOD.items() if name != field}
    assert wrong_fields(body) == {field}


def test_every_wrong_field_is_listed_not_the_first() -> None:
    body = {"amount": "1", "currency": "usd", "psp": "nobody", "colour": "red", "metadata": {"CVC": "1"}}
    expected = {"amount", "currency", "payment_method", "psp", "colour", "metadata", CHECKOUT_ID_HEADER}
    assert wrong_fields(body, "short") == expected


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"1",
        b'"x"',
        b"{",
        b'{"amount":1,}',
        b'{"amount":NaN}',
        b'{"description":"\xff"}',
        b'{"description":"\\ud800"}',
        b'{"description":"a\x00b"}',
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"a":' * 5_000,
        b'{"amount":' + b"9" * 10_000 + b"}",
        json.dumps(GOOD).encode("utf-16"),
        json.dumps(GOOD).encode() + b"{}",
    ],
)
def test_what_is_not_a_json_object_in_utf8_is_refused(raw: bytes) -> None:
    assert isinstance(decide(raw), Rejected)


def test_a_duplicate_key_is_refused_at_any_level() -> None:
    assert wrong_fields(b'{"amount":1,"amount":1,"currency":"USD","payment_method":"pm_ok"}') == {"amount"}
    doubled = b'{"amount":1,"currency":"USD","payment_method":"pm","metadata":{"a":"b","a":"b"}}'
    assert wrong_fields(doubled) == {"metadata"}
    escaped = b'{"amount":1,"\\u0061mount":1,"currency":"USD","payment_method":"pm"}'
    assert wrong_fields(escaped) == {"amount"}


@pytest.mark.parametrize("field", ["description", "payment_method", "customer_id", "return_url", "metadata"])
@pytest.mark.parametrize("text", ["a\0b", PAN, "4111 1111 1111 1111", "x 3782-822463-10005 x"])
def test_nul_and_card_numbers_are_refused_in_every_string(field: str, text: str) -> None:
    if field != "metadata":
        assert wrong_fields(GOOD | {field: text}) == {field}
        return
    assert wrong_fields(GOOD | {field: {"k": text}}) == {field}
    assert wrong_fields(GOOD | {field: {text: "v"}}) == {field}


def test_an_escaped_card_number_is_refused() -> None:
    escaped = "".join(f"\\u00{ord(digit):x}" for digit in PAN)
    raw = json.dumps(GOOD).replace("pm_ok", escaped).encode()
    assert wrong_fields(raw) == {"payment_method"}


@pytest.mark.parametrize("key", ["cvv", "CVV", "cvc", "Cvc", "pan", "PAN", "pAn"])
def test_keys_that_name_card_data_are_refused_at_any_level(key: str) -> None:
    assert wrong_fields(GOOD | {"metadata": {key: "1"}}) == {"metadata"}
    assert "card" in wrong_fields(GOOD | {"card": {"deep": [{key: "1"}]}})
    assert key in wrong_fields(GOOD | {key: "1"})


@pytest.mark.parametrize(
    "checkout_id", ["", "short", "x" * 65, "order 0001", "order/0001", "ördér-0001", PAN]
)
def test_a_wrong_id_in_the_header_is_refused(checkout_id: str) -> None:
    assert wrong_fields(GOOD, checkout_id) == {CHECKOUT_ID_HEADER}


def test_an_id_that_is_a_time_stamp_or_a_uuid_is_admitted() -> None:
    for checkout_id in ("20261121101500123", "1763720000000000", "123e4567-e89b-42d3-a456-426614174000"):
        assert isinstance(decide(GOOD, checkout_id), Admitted)


def test_nothing_of_a_card_number_is_in_the_answer() -> None:
    body = GOOD | {PAN: PAN, "psp": PAN, "capture": PAN, "metadata": {PAN: PAN}, "4111-1111-1111-1111": 1}
    decision = decide(body, PAN)
    assert isinstance(decision, Rejected)
    text = repr(decision)
    assert "4111" not in text
    assert "1111" not in text


def test_the_fingerprint_is_of_what_was_asked_not_of_how_it_was_written() -> None:
    def of(body: dict[str, Any]) -> bytes:
        decision = decide(body)
        assert isinstance(decision, Admitted)
        return decision.fingerprint

    same = of(GOOD)
    assert of(dict(reversed(GOOD.items()))) == same
    assert of(GOOD | {"capture": "automatic"}) == same
    assert of(GOOD | {"capture": None, "psp": None, "metadata": None}) == same
    assert of(GOOD | {"payment_checkout_id": "order-0001"}) == same
    one = {"metadata": {"a": "1", "b": "2"}}
    assert of(GOOD | one) == of(GOOD | {"metadata": {"b": "2", "a": "1"}})
    others = ({"amount": 1}, {"capture": "manual"}, {"psp": "simulator"}, one, {"description": "x"})
    assert len({same, *(of(GOOD | other) for other in others)}) == 1 + len(others)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_make_admission_raise(raw: bytes) -> None:
    decide(raw)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*GOOD, "metadata", "psp", "capture", "cvv", "x"]), _JSON))
def test_whatever_is_admitted_keeps_the_rules(body: dict[str, Any]) -> None:
    decision = decide(json.dumps(GOOD | body).encode())
    if isinstance(decision, Admitted):
        request = decision.request
        assert type(request.amount) is int
        assert 1 <= request.amount <= AMOUNT_MAX
        assert "\0" not in json.dumps(msgspec.structs.asdict(request))
        assert "\\u0000" not in json.dumps(msgspec.structs.asdict(request))
        assert request.psp is None or request.psp in PSPS
    else:
        assert decision.problems
