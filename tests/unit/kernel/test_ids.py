from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate import ids

merchants = st.from_regex(ids.MERCHANT, fullmatch=True)
checkout_ids = st.from_regex(ids.CHECKOUT_ID, fullmatch=True)


@given(merchants, checkout_ids)
def test_a_payment_key_splits_into_what_it_was_made_of(merchant: str, checkout_id: str) -> None:
    assert ids.split_payment_key(ids.payment_key(merchant, checkout_id)) == (merchant, checkout_id)


def test_a_key_without_a_slash_is_refused() -> None:
    with pytest.raises(ValueError, match="merchant/checkout id"):
        ids.split_payment_key("no-slash")


@given(st.lists(st.tuples(merchants, checkout_ids, checkout_ids, st.sampled_from(["charge", "confirm"]))))
def test_psp_keys_differ_exactly_when_their_parts_differ(parts: list[tuple[str, str, str, str]]) -> None:
    keys = {ids.psp_idempotency_key(*part) for part in parts}
    assert len(keys) == len(set(parts))
    assert all(re.fullmatch(r"[0-9a-f]{64}", key) for key in keys)


def test_the_psp_key_never_changes() -> None:
    # A different key for the same operation is a second charge: this value may not change, ever.
    assert ids.psp_idempotency_key("demo", "checkout-1", "payment", "charge") == (
        "3ad8c3caf244ca7ebdf8b0bd9d685b1e59d3b5224a4ebe8e13304c884cf0f86c"
    )


def test_new_api_keys_differ_and_only_their_hash_is_kept() -> None:
    one, two = ids.new_api_key(), ids.new_api_key()
    assert one != two
    assert len(ids.api_key_hash(one)) == 32
    assert one.encode() not in ids.api_key_hash(one)
