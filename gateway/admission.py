"""Admission: whether the bytes of a POST are a payment we take. Pure; knows no server, no clock, no store.

`admit` answers Admitted or Rejected, and Rejected lists every wrong field. Nothing of a refused value is in
the answer: messages are the rules themselves, and a field's name is repeated only when it can't be a number.

A good body costs one strict parse (pydantic) and two scans of its bytes. What those can't exclude is read
again by the slow reader, which sees every key and every string as it was sent: duplicate keys, NUL, card
data.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, NamedTuple

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo

from gateway.card_numbers import holds_card_number, may_hold_card_number
from tollgate.ids import CHECKOUT_ID
from tollgate.money import AMOUNT_MAX, is_currency

CHECKOUT_ID_HEADER: Final = "X-PAYMENT-CHECKOUT-ID"
FORBIDDEN_KEYS: Final = frozenset({"cvv", "cvc", "pan"})


class _Context(NamedTuple):
    checkout_id: str
    psp_names: frozenset[str]


def _currency(value: str) -> str:
    if not is_currency(value):
        raise ValueError
    return value


def _known_psp(value: str, info: ValidationInfo[_Context]) -> str:
    if value not in info.context.psp_names:
        raise ValueError
    return value


def _same_as_header(value: str, info: ValidationInfo[_Context]) -> str:
    if value != info.context.checkout_id:
        raise ValueError
    return value


class PaymentRequest(BaseModel):
    """The body of POST /v1/payments. An explicit null is the same as an absent field."""

    model_config = ConfigDict(extra="forbid", strict=True)

    amount: Annotated[int, Field(ge=1, le=AMOUNT_MAX)]
    currency: Annotated[str, AfterValidator(_currency)]
    payment_method: Annotated[str, Field(min_length=1, max_length=255)]
    capture: Literal["automatic", "manual"] | None = None
    psp: Annotated[str, AfterValidator(_known_psp)] | None = None
    customer_id: Annotated[str, Field(max_length=64)] | None = None
    description: Annotated[str, Field(max_length=500)] | None = None
    return_url: Annotated[str, Field(max_length=2048)] | None = None
    metadata: (
        Annotated[
            dict[Annotated[str, Field(max_length=40)], Annotated[str, Field(max_length=500)]],
            Field(max_length=20),
        ]
        | None
    ) = None
    payment_checkout_id: Annotated[str, AfterValidator(_same_as_header)] | None = None


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
_CARD_RULE: Final = "holds a card number; send the PSP's token in its place"
_CARD_KEY_RULE: Final = "is card data, which is not taken here; send the PSP's token in its place"


class FieldProblem(NamedTuple):
    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Admitted:
    request: PaymentRequest
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Rejected:
    problems: tuple[FieldProblem, ...]


def admit(body: bytes, checkout_id: str, psp_names: frozenset[str]) -> Admitted | Rejected:
    """Decides over the body and the id in the header together."""
    problems = list(_checkout_id_problems(checkout_id))
    try:
        request = PaymentRequest.model_validate_json(body, context=_Context(checkout_id, psp_names))
    except ValidationError as error:
        problems += _field_problems(error)
        if problems[-1].field != "body":
            problems += _text_problems(body)
        return _rejected(problems)
    if _needs_slow_reading(body, request):
        problems += _text_problems(body)
    return _rejected(problems) if problems else Admitted(request, fingerprint(request))


def fingerprint(request: PaymentRequest) -> bytes:
    """SHA-256 of what was asked: null = absent, capture filled in, the repeated id left out, sorted."""
    content = {
        name: value
        for name, value in request.__dict__.items()
        if value is not None and name != "payment_checkout_id"
    }
    content.setdefault("capture", "automatic")
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).digest()


def _rejected(problems: list[FieldProblem]) -> Rejected:
    return Rejected(tuple(dict.fromkeys(problems)))


def _checkout_id_problems(checkout_id: str) -> Iterator[FieldProblem]:
    if not CHECKOUT_ID.fullmatch(checkout_id):
        yield FieldProblem(CHECKOUT_ID_HEADER, _CHECKOUT_ID_RULE)
    elif holds_card_number(checkout_id):
        yield FieldProblem(CHECKOUT_ID_HEADER, _CARD_RULE)


def _field_problems(error: ValidationError) -> Iterator[FieldProblem]:
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        name = str(problem["loc"][0]) if problem["loc"] else "body"
        if problem["type"] == "json_invalid":
            yield FieldProblem(name, "is not valid JSON in UTF-8")
        elif name in _RULES:
            missing = "is required and " if problem["type"] == "missing" else ""
            yield FieldProblem(name, missing + _RULES[name])
        elif problem["type"] == "extra_forbidden":
            yield FieldProblem(_printable(name), "is not a field of a payment")
        else:
            yield FieldProblem("body", "must be a JSON object")


def _needs_slow_reading(body: bytes, request: PaymentRequest) -> bool:
    """False only when the bytes rule out duplicate keys, NUL and card data.

    Without a backslash, text reads as it stands. Then every colon is a pair's own or stands in a string that
    was kept, unless a pair was dropped because its key came again.
    """
    metadata = request.metadata or {}
    return (
        b"\\" in body
        or may_hold_card_number(body)
        or any(key.casefold() in FORBIDDEN_KEYS for key in metadata)
        or body.count(b":") != _colons(request, metadata)
    )


def _colons(request: PaymentRequest, metadata: Mapping[str, str]) -> int:
    """How many there are in a body that holds exactly the pairs that were kept."""
    texts = [value for value in request.__dict__.values() if type(value) is str]
    texts += metadata
    texts += metadata.values()
    return len(request.model_fields_set) + len(metadata) + "".join(texts).count(":")


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as it was sent: order and duplicates kept."""


def _text_problems(body: bytes) -> Iterator[FieldProblem]:
    """What is wrong with the keys and strings of a body that is JSON. Numbers are not looked at."""
    parsed = json.loads(body.decode(), object_pairs_hook=_Pairs, parse_int=_unread, parse_float=_unread)
    return _inspect(parsed, None)


def _unread(_number: str) -> None:
    return None


def _inspect(value: object, field: str | None) -> Iterator[FieldProblem]:
    """`field` is the top-level field that `value` stands under, None for the body itself."""
    if isinstance(value, str):
        yield from _inspect_string(value, field or "body")
    elif isinstance(value, _Pairs):
        seen: set[str] = set()
        for key, item in value:
            name = field or _printable(key)
            if key in seen:
                yield FieldProblem(name, "holds a key more than once" if field else "appears more than once")
            seen.add(key)
            if key.casefold() in FORBIDDEN_KEYS:
                yield FieldProblem(name, _CARD_KEY_RULE)
            yield from _inspect_string(key, name)
            yield from _inspect(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _inspect(item, field)


def _inspect_string(text: str, field: str) -> Iterator[FieldProblem]:
    if "\0" in text:
        yield FieldProblem(field, "holds a NUL character")
    if holds_card_number(text):
        yield FieldProblem(field, _CARD_RULE)


_PLAIN_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,39}")


def _printable(name: str) -> str:
    """The name of a field the client made up, when repeating it can't repeat a number."""
    few_digits = sum(map(str.isdigit, name)) < 5
    return name if few_digits and _PLAIN_NAME.fullmatch(name) else "(a field whose name is not repeated)"
