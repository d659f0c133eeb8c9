"""What a payment means that names a customer or a payment method kept here. Pure.

`cus_…` and `pmt_…` are ours; any other value is the merchant's own, and nobody looks at it. A payment that
names what is not there fails before the PSP hears of it. The payment itself keeps the name: only what is
assessed and sent has the token in its place.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from tollgate.v1.payment_pb2 import Payment

CUSTOMER_PREFIX: Final = "cus_"
METHOD_PREFIX: Final = "pmt_"

Name = tuple[str, str]  # merchant and id


@dataclass(frozen=True, slots=True)
class Kept:
    """A payment method. `customer_id` is empty when it is nobody's."""

    token: str
    customer_id: str
    is_deleted: bool


@dataclass(frozen=True, slots=True)
class Missing:
    """Why the payment fails."""

    code: str
    message: str


def customer_named(payment: Payment) -> Name | None:
    ours = payment.customer_id.startswith(CUSTOMER_PREFIX)
    return (payment.merchant, payment.customer_id) if ours else None


def method_named(payment: Payment) -> Name | None:
    ours = payment.payment_method.startswith(METHOD_PREFIX)
    return (payment.merchant, payment.payment_method) if ours else None


def resolve(
    payment: Payment, customers: Collection[Name], methods: Mapping[Name, Kept], *, is_begun: bool
) -> Payment | Missing:
    """The payment with the PSP's token. `is_begun`: the PSP has heard of it, so it is carried to its end with
    what it began with, a method that was deleted since included, and never fails here.
    """
    method = methods.get(name) if (name := method_named(payment)) else None
    missing = None if is_begun else _missing(payment, customers, method)
    if missing is not None or method is None:
        return missing or payment
    resolved = Payment()
    resolved.CopyFrom(payment)
    resolved.payment_method = method.token
    return resolved


def _missing(payment: Payment, customers: Collection[Name], method: Kept | None) -> Missing | None:
    customer = customer_named(payment)
    if customer is not None and customer not in customers:
        return Missing("unknown_customer", "The merchant has no customer of this id.")
    if method_named(payment) is None:
        return None
    if method is None or method.is_deleted:
        return Missing("unknown_payment_method", "The merchant has no payment method of this id.")
    if method.customer_id and payment.customer_id and method.customer_id != payment.customer_id:
        return Missing("unknown_payment_method", "The customer of this payment has no such payment method.")
    return None
