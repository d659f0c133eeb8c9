"""Captures, cancels, refunds and changes of a payment as clients ask for them: what is taken, and what is
wrong with the rest. Pure; whether they may be is the Ledger's to say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gateway.card_numbers import holds_card_number
from gateway.strict_json import CARD_RULE, FieldProblem, Form, Rejected
from tollgate.money import AMOUNT_MAX
from tollgate.v1.payment_pb2 import OperationType

IDEMPOTENCY_KEY_HEADER: Final = "Idempotency-Key"
IF_MATCH_HEADER: Final = "If-Match"

_Amount = Annotated[int, Meta(ge=1, le=AMOUNT_MAX)]
Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=40)], Annotated[str, Meta(max_length=500)]], Meta(max_length=20)
]
_AMOUNT_RULE: Final = f"must be an integer number of minor units, 1 to {AMOUNT_MAX}"
METADATA_RULE: Final = "must be at most 20 pairs of strings, keys up to 40 and values up to 500 characters"
_ONCE: Final = "must be there once"
_KEY_RULE: Final = "must be 1 to 255 visible ASCII characters, as they are or in double quotes"
_IF_MATCH_RULE: Final = 'must be one ETag of the payment, as in "3"'
_NOTHING_TO_CHANGE: Final = FieldProblem("body", "must hold description or metadata")

# Bare or as a string of RFC 8941: the same key in quotes is the same key.
_KEY: Final = re.compile(r'"([\x21-\x7e]{1,255})"|([\x21\x23-\x7e][\x21-\x7e]{0,254})')
IDEMPOTENCY_KEY_PATTERN: Final = f"^(?:{_KEY.pattern})$"
_ENTITY_TAG: Final = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_VERSION: Final = re.compile(r"0|[1-9][0-9]{0,17}")


class CaptureRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Without an amount: all that is authorized."""

    amount: _Amount | None = None


class CancelRequest(msgspec.Struct, forbid_unknown_fields=True):
    pass


class RefundRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Without an amount: all that remains."""

    amount: _Amount | None = None
    reason: Annotated[str, Meta(max_length=500)] | None = None


class PaymentChange(msgspec.Struct, forbid_unknown_fields=True):
    """What is not there stays as it is; null takes it away. Metadata is replaced whole."""

    description: Annotated[str, Meta(max_length=500)] | UnsetType | None = UNSET
    metadata: Metadata | UnsetType | None = UNSET


_CAPTURE: Final = Form(CaptureRequest, {"amount": _AMOUNT_RULE}, "a capture")
_CANCEL: Final = Form(CancelRequest, {}, "a cancel")
_REFUND: Final = Form(
    RefundRequest,
    {"amount": _AMOUNT_RULE, "reason": "must be a string of at most 500 characters"},
    "a refund",
)
_CHANGE: Final = Form(
    PaymentChange,
    {
        "description": "must be a string of at most 500 characters",
        "metadata": METADATA_RULE,
    },
    "a payment that can be changed",
)
_FORM_OF: Final[
    dict[OperationType.ValueType, Form[CaptureRequest] | Form[CancelRequest] | Form[RefundRequest]]
] = {
    OperationType.OPERATION_TYPE_CAPTURE: _CAPTURE,
    OperationType.OPERATION_TYPE_CANCEL: _CANCEL,
    OperationType.OPERATION_TYPE_REFUND: _REFUND,
}


@dataclass(frozen=True, slots=True)
class OperationWanted:
    """`amount` None: all there is."""

    type: OperationType.ValueType
    amount: int | None
    reason: str
    idempotency_key: str


def read_operation(
    kind: OperationType.ValueType, body: bytes, keys: Sequence[str]
) -> OperationWanted | Rejected:
    """`keys` are the values of the Idempotency-Key header, at least one. No body is an empty object."""
    key = read_idempotency_key(keys)
    request = _FORM_OF[kind].read(body or b"{}")
    problems = tuple(
        problem for part in (key, request) if isinstance(part, Rejected) for problem in part.problems
    )
    if isinstance(key, Rejected) or isinstance(request, Rejected):
        return Rejected(problems)
    amount = None if isinstance(request, CancelRequest) else request.amount
    reason = request.reason if isinstance(request, RefundRequest) else None
    return OperationWanted(kind, amount, reason or "", key)


def read_idempotency_key(values: Sequence[str]) -> str | Rejected:
    match = _KEY.fullmatch(values[0]) if len(values) == 1 else None
    if match is None:
        return _wrong(IDEMPOTENCY_KEY_HEADER, _KEY_RULE if len(values) == 1 else _ONCE)
    key = match[1] or match[2]
    return _wrong(IDEMPOTENCY_KEY_HEADER, CARD_RULE) if holds_card_number(key) else key


class ChangeWanted(NamedTuple):
    """`version` None: the tag is one that this payment never had. `change` may leave fields unset."""

    version: int | None
    change: PaymentChange


def read_change(body: bytes, if_match: Sequence[str]) -> ChangeWanted | Rejected:
    """`if_match` are the values of the If-Match header, at least one."""
    change = _CHANGE.read(body)
    problems = list(change.problems) if isinstance(change, Rejected) else []
    if isinstance(change, PaymentChange) and change.description is UNSET and change.metadata is UNSET:
        problems.append(_NOTHING_TO_CHANGE)
    match = _ENTITY_TAG.fullmatch(if_match[0].strip()) if len(if_match) == 1 else None
    if match is None:
        problems.append(FieldProblem(IF_MATCH_HEADER, _IF_MATCH_RULE))
    if isinstance(change, Rejected) or match is None or problems:
        return Rejected(tuple(problems))
    # A weak tag matches nothing here (RFC 9110, 13.1.1).
    is_version = match[1] is None and _VERSION.fullmatch(match[2])
    return ChangeWanted(int(match[2]) if is_version else None, change)


def _wrong(field: str, message: str) -> Rejected:
    return Rejected((FieldProblem(field, message),))
