"""What a payment means that names a customer or a payment method of the vault."""

from __future__ import annotations

import pytest

from processor.vault import Kept, Missing, resolve
from tests.fixtures.changes import accepted_payment
from tollgate.v1.payment_pb2 import Payment

CUSTOMER, METHOD = "cus_0000000000000000000000aa", "pmt_0000000000000000000000bb"
CUSTOMERS = {("acme", CUSTOMER)}


def naming(customer: str, method: str) -> Payment:
    payment = accepted_payment()
    payment.customer_id, payment.payment_method = customer, method
    return payment


def methods(customer: str = "", *, is_deleted: bool = False) -> dict[tuple[str, str], Kept]:
    return {("acme", METHOD): Kept("pm_ok", customer, is_deleted)}


@pytest.mark.parametrize("customer", ["", "customer-77", "CUS_1", "my_cus_1", CUSTOMER])
def test_a_name_of_the_merchants_own_is_nobodys_business(customer: str) -> None:
    payment = naming(customer, "pm_card_visa")
    assert resolve(payment, CUSTOMERS, {}, is_begun=False) == payment


@pytest.mark.parametrize(("named", "owner"), [("", ""), ("", CUSTOMER), (CUSTOMER, CUSTOMER), ("mine", "")])
def test_a_kept_method_stands_for_its_token_and_the_payment_keeps_the_name(named: str, owner: str) -> None:
    payment = naming(named, METHOD)
    resolved = resolve(payment, CUSTOMERS, methods(owner), is_begun=False)
    assert isinstance(resolved, Payment)
    assert (resolved.payment_method, payment.payment_method) == ("pm_ok", METHOD)
    resolved.payment_method = METHOD
    assert resolved == payment


def test_what_is_not_there_is_missing_and_the_customer_is_looked_at_first() -> None:
    other = naming("cus_other", "pmt_other")
    codes = [
        resolve(other, CUSTOMERS, methods(), is_begun=False),
        resolve(naming("", "pmt_other"), CUSTOMERS, methods(), is_begun=False),
        resolve(naming("", METHOD), CUSTOMERS, methods(is_deleted=True), is_begun=False),
        resolve(naming("mine", METHOD), CUSTOMERS, methods(CUSTOMER), is_begun=False),
        resolve(naming("", METHOD), CUSTOMERS, {("zeta", METHOD): Kept("pm_ok", "", False)}, is_begun=False),
    ]
    assert [found.code for found in codes if isinstance(found, Missing)] == [
        "unknown_customer",
        *4 * ["unknown_payment_method"],
    ]


def test_what_the_psp_has_heard_of_never_fails_here() -> None:
    resolved = resolve(naming("", METHOD), CUSTOMERS, methods(is_deleted=True), is_begun=True)
    assert isinstance(resolved, Payment)
    assert resolved.payment_method == "pm_ok"
    older = naming("cus_before_there_were_any", "pmt_before_there_were_any")
    assert resolve(older, CUSTOMERS, {}, is_begun=True) == older
