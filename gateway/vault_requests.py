"""Customers and payment methods as clients send them and ask for them: what is taken, and what is wrong with
the rest. Pure; whether a customer is known is the Ledger's to say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta

from gateway.list_requests import LIMIT_DEFAULT, PAGE_RULES, read_limit, read_parameters, read_place
from gateway.operation_requests import METADATA_RULE, Metadata, read_idempotency_key
from gateway.strict_json import FieldProblem, Form, Rejected
from tollgate.v1.ledger_pb2 import Customer, PaymentMethod, VaultPlace
from tollgate.v1.payment_pb2 import MetadataEntry

NAME_LENGTH_MAX: Final = 200
EMAIL_LENGTH_MAX: Final = 320  # 64 before the @, 255 behind it
TOKEN_LENGTH_MAX: Final = 255
CUSTOMER_ID_LENGTH_MAX: Final = 64
DESCRIPTION_LENGTH_MAX: Final = 500
_DESCRIPTION_RULE: Final = f"must be a string of at most {DESCRIPTION_LENGTH_MAX} characters"
_CUSTOMER_ID_RULE: Final = f"must be a string of 1 to {CUSTOMER_ID_LENGTH_MAX} characters"

ID: Final = re.compile(r"(cus|pmt)_[0-9a-f]{24}")

_Description = Annotated[str, Meta(max_length=DESCRIPTION_LENGTH_MAX)]


class CustomerRequest(msgspec.Struct, forbid_unknown_fields=True):
    """An explicit null is the same as an absent field."""

    name: Annotated[str, Meta(max_length=NAME_LENGTH_MAX)] | None = None
    email: Annotated[str, Meta(max_length=EMAIL_LENGTH_MAX)] | None = None
    description: _Description | None = None
    metadata: Metadata | None = None


class PaymentMethodRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Whose it is: a customer kept here (`cus_…`), the merchant's own name for one, or nobody's."""

    token: Annotated[str, Meta(min_length=1, max_length=TOKEN_LENGTH_MAX)]
    customer_id: Annotated[str, Meta(min_length=1, max_length=CUSTOMER_ID_LENGTH_MAX)] | None = None
    description: _Description | None = None
    metadata: Metadata | None = None


_CUSTOMER: Final = Form(
    CustomerRequest,
    {
        "name": f"must be a string of at most {NAME_LENGTH_MAX} characters",
        "email": f"must be a string of at most {EMAIL_LENGTH_MAX} characters",
        "description": _DESCRIPTION_RULE,
        "metadata": METADATA_RULE,
    },
    "a customer",
)
_METHOD: Final = Form(
    PaymentMethodRequest,
    {
        "token": f"must be a PSP's token, a string of 1 to {TOKEN_LENGTH_MAX} characters",
        "customer_id": _CUSTOMER_ID_RULE,
        "description": _DESCRIPTION_RULE,
        "metadata": METADATA_RULE,
    },
    "a payment method",
)


class CustomerWanted(NamedTuple):
    """`idempotency_key` is empty when the client sent none."""

    customer: Customer
    idempotency_key: str


class MethodWanted(NamedTuple):
    method: PaymentMethod
    idempotency_key: str


class PageWanted(NamedTuple):
    """`customer_id` is empty for any."""

    limit: int
    after: VaultPlace | None
    customer_id: str


def read_customer(body: bytes, keys: Sequence[str]) -> CustomerWanted | Rejected:
    """`keys` are the values of the Idempotency-Key header; there need be none."""
    key = read_idempotency_key(keys) if keys else ""
    request = _CUSTOMER.read(body)
    if isinstance(key, Rejected) or isinstance(request, Rejected):
        return _both(key, request)
    customer = Customer(
        name=request.name or "",
        email=request.email or "",
        description=request.description or "",
        metadata=_entries(request.metadata),
    )
    return CustomerWanted(customer, key)


def read_payment_method(body: bytes, keys: Sequence[str]) -> MethodWanted | Rejected:
    """The same."""
    key = read_idempotency_key(keys) if keys else ""
    request = _METHOD.read(body)
    if isinstance(key, Rejected) or isinstance(request, Rejected):
        return _both(key, request)
    method = PaymentMethod(
        token=request.token,
        customer_id=request.customer_id or "",
        description=request.description or "",
        metadata=_entries(request.metadata),
    )
    return MethodWanted(method, key)


def read_page(query: str, *, of_customers: bool) -> PageWanted | Rejected:
    """`of_customers`: the list has no filter. Every wrong parameter is listed; no value is repeated."""
    limit, customer_id = LIMIT_DEFAULT, ""
    after: VaultPlace | None = None

    def take(name: str, value: str) -> bool:
        nonlocal limit, customer_id, after
        match name:
            case "limit":
                limit = read_limit(value) or 0
                return limit > 0
            case "cursor":
                after = read_place(value, VaultPlace)
                return after is not None and ID.fullmatch(after.id) is not None
            case _:
                customer_id = value
                return 1 <= len(value) <= CUSTOMER_ID_LENGTH_MAX

    rules = PAGE_RULES if of_customers else {"customer_id": _CUSTOMER_ID_RULE, **PAGE_RULES}
    problems = read_parameters(query, rules, take)
    return Rejected(problems) if problems else PageWanted(limit, after, customer_id)


def _entries(metadata: dict[str, str] | None) -> list[MetadataEntry]:
    return [MetadataEntry(key=key, value=value) for key, value in (metadata or {}).items()]


def _both(*parts: object) -> Rejected:
    found: list[FieldProblem] = []
    for part in parts:
        if isinstance(part, Rejected):
            found += part.problems
    return Rejected(tuple(found))
