"""Customers and payment methods through the real stack, and payments that name them."""

from __future__ import annotations

import pytest

from tests.fixtures.stack import RunningStack, new_checkout_id
from tests.fixtures.waiting import wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(200)]  # the first one starts the stack


def ends_as(stack: RunningStack, wanted: str, **fields: object) -> tuple[str | None, int]:
    """A payment's failure code, and how many effects it had at the PSP."""
    checkout_id = new_checkout_id()
    assert stack.pay(checkout_id, **fields).status == 202
    wait_until(lambda: stack.status_of(checkout_id) == wanted, wanted)
    told = stack.request("GET", f"/v1/payments/{checkout_id}").json
    assert {name: told[name] for name in fields if name in told} == {
        name: value for name, value in fields.items() if name in told
    }
    return told["failure"] and told["failure"]["code"], len(stack.effects(checkout_id))


def test_a_payment_by_the_names_of_a_customer_and_a_method_and_what_each_absence_comes_to(
    stack: RunningStack,
) -> None:
    customer = stack.request("POST", "/v1/customers", {"name": "Ada"})
    assert customer.status == 201, customer
    who = customer.json["id"]
    key = {"Idempotency-Key": new_checkout_id()}
    body = {"token": "pm_ok", "customer_id": who}
    method = stack.request("POST", "/v1/payment_methods", body, key)
    again = stack.request("POST", "/v1/payment_methods", body, key)
    assert (method.status, again.status, again.json) == (201, 200, method.json)
    how = method.json["id"]
    assert stack.request("GET", f"/v1/payment_methods?customer_id={who}").json["data"] == [method.json]

    assert ends_as(stack, "succeeded", payment_method=how, customer_id=who) == (None, 1)
    declined = stack.request("POST", "/v1/payment_methods", {"token": "pm_declined"}).json["id"]
    assert ends_as(stack, "failed", payment_method=declined)[0] == "insufficient_funds"
    nobody = "cus_000000000000000000000000"
    assert ends_as(stack, "failed", customer_id=nobody) == ("unknown_customer", 0)

    assert stack.request("DELETE", f"/v1/payment_methods/{how}").status == 204
    assert stack.request("GET", f"/v1/payment_methods/{how}").status == 404
    assert ends_as(stack, "failed", payment_method=how) == ("unknown_payment_method", 0)
