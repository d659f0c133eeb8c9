from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.card_numbers import BRANDS, holds_card_number, may_hold_card_number

PANS = [
    "4222222222222",  # Visa, 13
    "4111111111111111",
    "4000000000000000006",  # Visa, 19
    "5555555555554444",
    "2223003122003222",
    "2720990000000007",
    "378282246310005",
    "341111111111111",
    "6011111111111117",
    "6445644564456445",
    "6510000000000000",
    "30569309025904",
    "36227206271667",
    "38520000023237",
    "3530111333300000",
    "6200000000000005",
    "6205500000000000004",
    "6759649826438453",
    "6304000000000000",
]


def luhn_completed(digits: str) -> str:
    total = 0
    for index, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if index % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return digits + str(-total % 10)


@st.composite
def pans(draw: st.DrawFn) -> str:
    brand = BRANDS[draw(st.sampled_from(sorted(BRANDS)))]
    low, high = draw(st.sampled_from(brand.ranges))
    prefix = str(draw(st.integers(int(low), int(high))))
    length = draw(st.sampled_from(sorted(brand.lengths)))
    rest = draw(st.text("0123456789", min_size=length - len(prefix) - 1, max_size=length - len(prefix) - 1))
    return luhn_completed(prefix + rest)


def grouped(pan: str, sizes: tuple[int, ...], separator: str) -> str:
    groups, start = [], 0
    for size in sizes:
        groups.append(pan[start : start + size])
        start += size
    return separator.join(groups)


GROUPINGS = {16: (4, 4, 4, 4), 14: (4, 6, 4), 15: (4, 6, 5)}


@pytest.mark.parametrize("pan", PANS)
@pytest.mark.parametrize("frame", ["{}", "card {}.", "a={};", "-{}-", "_{}_", "{} {}", "1234-{}"])
def test_a_schemes_test_number_is_found_wherever_it_stands(pan: str, frame: str) -> None:
    text = frame.replace("{}", pan)
    assert holds_card_number(text)
    assert may_hold_card_number(text.encode())


@given(pans(), st.sampled_from([" ", "-"]))
def test_every_brand_is_found_unbroken_and_in_its_grouping(pan: str, separator: str) -> None:
    assert holds_card_number(pan)
    if sizes := GROUPINGS.get(len(pan)):
        text = f"pay with {grouped(pan, sizes, separator)}, please"
        assert holds_card_number(text)
        assert may_hold_card_number(text.encode())


@given(pans(), st.sampled_from("aZé5ß東0"))
def test_digits_next_to_a_letter_or_digit_are_no_card_number(pan: str, neighbour: str) -> None:
    if neighbour in "05":  # a longer run of digits may be another brand's number
        neighbour *= 20
    assert not holds_card_number(pan + neighbour)
    assert not holds_card_number(neighbour + pan)


@given(pans(), st.data())
def test_a_number_that_fails_luhn_is_no_card_number(pan: str, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(pan) - 1))
    digit = data.draw(st.sampled_from([d for d in "0123456789" if d != pan[position]]))
    assert not holds_card_number(pan[:position] + digit + pan[position + 1 :])


def test_another_brands_length_and_another_grouping_are_no_card_number() -> None:
    assert not holds_card_number(luhn_completed("411111111111111111"[:14]))  # Visa of 15
    assert not holds_card_number("4111-11111111-1111")
    assert not holds_card_number("4111--1111--1111--1111")
    assert not holds_card_number("4111.1111.1111.1111")


def test_a_card_number_that_overlaps_another_candidate_is_found() -> None:
    assert holds_card_number("1234-4111-1111-1111-1111")
    assert holds_card_number("0000 0000 4111 1111 1111 1111 0000")


@given(st.uuids())
def test_a_uuid_is_never_a_card_number(value: uuid.UUID) -> None:
    assert not holds_card_number(str(value))


@given(st.integers(1_400_000_000, 2_399_999_999), st.integers(0, 999_999_999))
def test_an_epoch_time_in_any_unit_is_never_a_card_number(seconds: int, nanos: int) -> None:
    for text in (f"{seconds}{nanos:09d}", f"{seconds}{nanos // 1000:06d}", f"{seconds}{nanos // 10**6:03d}"):
        if not ("2221" <= text[:4] <= "2720" and len(text) == 16):  # Mastercard's, from the year 2040 on
            assert not holds_card_number(text)


@given(st.datetimes())
def test_a_compact_time_stamp_of_this_century_is_never_a_card_number(when: object) -> None:
    text = f"{when:%Y%m%d%H%M%S}"
    if "2000" < text[:4] < "2100":
        assert not holds_card_number(text)
        assert not holds_card_number(text + "123456"[:2])


@given(st.text(alphabet="0123456789- aé:", max_size=60))
def test_the_cheap_scan_never_misses_what_the_rule_finds(text: str) -> None:
    assert may_hold_card_number(text.encode()) or not holds_card_number(text)
