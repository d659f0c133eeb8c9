from __future__ import annotations

import base64
import hmac
import re

from hypothesis import given
from hypothesis import strategies as st

from tollgate.client_secrets import ClientSecrets

SECRETS = ClientSecrets(b"0123456789abcdef" * 2)
merchants = st.from_regex(r"[a-z0-9_]{1,32}", fullmatch=True)
checkout_ids = st.from_regex(r"[A-Za-z0-9_-]{8,64}", fullmatch=True)


@given(merchants, checkout_ids, checkout_ids)
def test_a_client_secret_opens_its_own_payment_and_no_other(merchant: str, own: str, other: str) -> None:
    secret = SECRETS.secret(merchant, own)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", secret)
    assert SECRETS.merchant(secret, own) == merchant
    if other != own:
        assert SECRETS.merchant(secret, other) is None
    assert ClientSecrets(b"x" * 32).merchant(secret, own) is None


@given(st.text())
def test_no_text_is_mistaken_for_a_client_secret(text: str) -> None:
    assert SECRETS.merchant(text, "checkout-1") is None


def test_a_client_secret_of_another_merchant_is_refused() -> None:
    mac = SECRETS.secret("alice", "checkout-1").partition("-")[2]
    assert SECRETS.merchant(f"mallory-{mac}", "checkout-1") is None


@given(st.binary(min_size=1, max_size=200), merchants, checkout_ids)
def test_the_mac_is_the_standard_librarys_whatever_the_keys_length(
    key: bytes, merchant: str, checkout_id: str
) -> None:
    mac = hmac.digest(key, f"{merchant}/{checkout_id}".encode(), "sha256")
    expected = base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
    assert ClientSecrets(key).secret(merchant, checkout_id) == f"{merchant}-{expected}"
