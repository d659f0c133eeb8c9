"""Admission: whether the bytes of a POST are a payment we take. Pure; knows no server, no clock, no store.

`admit` answers Admitted or Rejected, and Rejected lists every wrong field. Nothing of a refused value is in
the answer: messages are the rules themselves, and a field's name is repeated only when it can't be a number.

A good body costs one strict parse (msgspec) and three scans of its bytes. Whatever those don't prove good is
read again by the slow reader (`strict_json`), which sees every key and every value as it was sent, and has
the last word.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from gateway.card_numbers import holds_card_number, may_hold_card_number
from gateway.strict_json import CARD_RULE, FORBIDDEN_KEYS, NOT_JSON, FieldProblem, Form, Rejected
from tollgate.ids import CHECKOUT_ID
from tollgate.money import AMOUNT_MAX, is_currency

CHECKOUT_ID_HEADER: Final = "X-PAYMENT-CHECKOUT-ID"


class PaymentRequest(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """The body of POST /v1/payments. An explicit null is the same as an absent field."""

    amount: Annotated[int, Meta(ge=1, le=AMOUNT_MAX)]
    currency: str
    payment_method: Annotated[str, Meta(min_length=1, max_length=255)]
    capture: Literal["automatic", "manual"] | None = None
    psp: str | None = None
    customer_id: Annotated[str, Meta(max_length=64)] | None = None
    description: Annotated[str, Meta(max_length=500)] | None = None
    return_url: Annotated[str, Meta(max_length=2048)] | None = None
    metadata: (
        Annotated[
            dict[Annotated[str, Meta(max_length=40)], Annotated[str, Meta(max_length=500)]],
            Meta(max_length=20),
        ]
        | None
    ) = None
    payment_checkout_id: str | None = None


_RULES: Final = {
    "amount": f"must be an integer number of minor units, 1 to {AMOUNT_MAX}",
    "currency": "must be an ISO 4217 alphabetic code in upper case",
    "payment_method": "must be a PSP's token, a string of 1 to 255 characters",
    "capture": 'must be "automatic" or "manual"',
    "psp": "must name a PSP that is configured here",
    "customer_id": "must be a string of at most 64 characters",
    "description": "must be a string of at most 500 characters",
    "return_url": "must be a string of at most 2048 characters",
    "metadata": "must be at most 20 pairs of strings, keys up to 40 and values up to 500 characters",
    "payment_checkout_id": f"must equal the {CHECKOUT_ID_HEADER} header",
}
_CHECKOUT_ID_RULE: Final = "must be 8 to 64 of A-Z, a-z, 0-9, _ and -"

_FORM: Final = Form(PaymentRequest, _RULES, "a payment")
_parse: Final = msgspec.json.Decoder(PaymentRequest).decode
_canonical: Final = msgspec.json.Encoder(order="sorted").encode


@dataclass(slots=True)
class Admitted:
    """`request` with its capture filled in and without the repeated id."""

    request: PaymentRequest
    fingerprint: bytes


def admit(body: bytes, checkout_id: str, psp_names: frozenset[str]) -> Admitted | Rejected:
    """Decides over the body and the id in the header together."""
    try:
        request = _parse(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Rejected(_problems(body, checkout_id, psp_names) or (NOT_JSON,))
    proven = (
        is_currency(request.currency)
        and (request.psp is None or request.psp in psp_names)
        and (request.payment_checkout_id is None or request.payment_checkout_id == checkout_id)
        and CHECKOUT_ID.fullmatch(checkout_id) is not None
        and not may_hold_card_number(checkout_id.encode())
        and not may_hold_card_number(body)
        and b"\\" not in body
    )
    quotes = body.count(b'"')
    if request.payment_checkout_id is not None:
        request.payment_checkout_id = None
        quotes -= 4
    if request.capture is None:
        request.capture = "automatic"
        quotes += 4
    content = _canonical(request)
    # Without a backslash a quote stands at both ends of every key and every string, and nowhere else: when as
    # many went out as came in, no pair was dropped because its key came again or its value was null.
    if not (proven and content.count(b'"') == quotes and _keys_are_harmless(request.metadata)):
        problems = _problems(body, checkout_id, psp_names)
        if problems:
            return Rejected(problems)
    return Admitted(request, hashlib.sha256(content).digest())


def _keys_are_harmless(metadata: dict[str, str] | None) -> bool:
    return metadata is None or FORBIDDEN_KEYS.isdisjoint(map(str.casefold, metadata))


def _problems(body: bytes, checkout_id: str, psp_names: frozenset[str]) -> tuple[FieldProblem, ...]:
    """Everything that is wrong, each once."""
    also: dict[str, Callable[[Any], bool]] = {
        "currency": is_currency,
        "psp": lambda value: value is None or value in psp_names,
        "payment_checkout_id": lambda value: value is None or value == checkout_id,
    }
    return (*_checkout_id_problems(checkout_id), *_FORM.problems(body, also))


def _checkout_id_problems(checkout_id: str) -> Iterator[FieldProblem]:
    if not CHECKOUT_ID.fullmatch(checkout_id):
        yield FieldProblem(CHECKOUT_ID_HEADER, _CHECKOUT_ID_RULE)
    elif holds_card_number(checkout_id):
        yield FieldProblem(CHECKOUT_ID_HEADER, CARD_RULE)
