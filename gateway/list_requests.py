"""What a client asks of the list of its payments, and the place in it that a cursor keeps. Pure.

A cursor is opaque to clients: where the page ended, in base64url. It holds no merchant, and opens nothing
that its bearer's key doesn't.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

from google.protobuf.message import DecodeError

from gateway.strict_json import FieldProblem, Rejected, printable, text_problems
from tollgate.ids import CHECKOUT_ID
from tollgate.status import BY_NAME
from tollgate.v1.ledger_pb2 import ListPaymentsRequest, ListPlace, VaultPlace

LIMIT_MAX: Final = 100
LIMIT_DEFAULT: Final = 20
_PARAMETERS_MAX: Final = 16
_LIMIT: Final = re.compile(r"[1-9][0-9]{0,2}")
_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})"
)
_CURSOR: Final = re.compile(r"[A-Za-z0-9_-]{1,120}")
CURSOR_PATTERN: Final = f"^{_CURSOR.pattern}$"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_YEAR_10000_US: Final = 253_402_300_800_000_000
PAGE_RULES: Final = {
    "limit": f"must be a number from 1 to {LIMIT_MAX}",
    "cursor": "must be a next_cursor of this list",
}
_RULES: Final = {
    "status": f"must be one of {', '.join(BY_NAME)}",
    "customer_id": "must be a string of 1 to 64 characters",
    "created_gte": "must be a time in RFC 3339, as in 2026-11-21T10:00:00Z",
    "created_lt": "must be a time in RFC 3339, as in 2026-11-21T10:00:00Z",
    **PAGE_RULES,
}

PlaceT = TypeVar("PlaceT", ListPlace, VaultPlace)


def read_list_query(query: str, merchant: str) -> ListPaymentsRequest | Rejected:
    """`query` as it was sent. Every wrong parameter is listed; no value is repeated."""
    request = ListPaymentsRequest(merchant=merchant, limit=LIMIT_DEFAULT)
    problems = read_parameters(query, _RULES, lambda name, value: bool(_READ[name](request, value)))
    return Rejected(problems) if problems else request


def read_parameters(
    query: str, rules: Mapping[str, str], take: Callable[[str, str], bool]
) -> tuple[FieldProblem, ...]:
    """Hands each parameter that has a rule to `take`, which says whether it is as the rule wants it."""
    try:
        pairs = _parsed(query) if query else []
    except ValueError:
        return (FieldProblem("query", "can't be read: name=value, joined by &, in UTF-8"),)
    problems: list[FieldProblem] = []
    names = [name for name, _value in pairs]
    for name, value in pairs:
        if name not in rules:
            problems.append(FieldProblem(printable(name), "is not a parameter of this list"))
        elif names.count(name) > 1:
            problems.append(FieldProblem(name, "must be there once"))
        elif not take(name, value):
            problems.append(FieldProblem(name, rules[name]))
        else:
            problems += text_problems(value, name)
    return tuple(dict.fromkeys(problems))


def read_limit(value: str) -> int | None:
    return int(value) if _LIMIT.fullmatch(value) and int(value) <= LIMIT_MAX else None


def read_place(value: str, kind: type[PlaceT]) -> PlaceT | None:
    """What a cursor holds; None for what this shard would not have written."""
    if not _CURSOR.fullmatch(value):
        return None
    try:
        place = kind.FromString(urlsafe_b64decode(value + "=" * (-len(value) % 4)))
    except (ValueError, DecodeError):
        return None
    is_a_time = 0 <= place.created_at_us < _YEAR_10000_US
    return place if is_a_time and cursor_of(place) == value else None


def cursor_of(place: ListPlace | VaultPlace) -> str:
    return urlsafe_b64encode(place.SerializeToString()).rstrip(b"=").decode()


def _parsed(query: str) -> list[tuple[str, str]]:
    return parse_qsl(
        query, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=_PARAMETERS_MAX
    )


def _status(request: ListPaymentsRequest, value: str) -> bool:
    request.status = BY_NAME.get(value, request.status)
    return value in BY_NAME


def _customer_id(request: ListPaymentsRequest, value: str) -> bool:
    request.customer_id = value
    return 1 <= len(value) <= 64


def _created_gte(request: ListPaymentsRequest, value: str) -> bool:
    at_us = _time_us(value)
    request.created_from_us = at_us or 0
    return at_us is not None


def _created_lt(request: ListPaymentsRequest, value: str) -> bool:
    at_us = _time_us(value)
    request.created_before_us = at_us or 0
    return at_us is not None


def _limit(request: ListPaymentsRequest, value: str) -> bool:
    limit = read_limit(value)
    request.limit = limit or LIMIT_DEFAULT
    return limit is not None


def _cursor(request: ListPaymentsRequest, value: str) -> bool:
    place = read_place(value, ListPlace)
    if place is None or not CHECKOUT_ID.fullmatch(place.checkout_id):
        return False
    request.after.CopyFrom(place)
    return True


def _time_us(value: str) -> int | None:
    if not _TIME.fullmatch(value):
        return None
    try:
        return (datetime.fromisoformat(value) - _EPOCH) // _MICROSECOND
    except ValueError:  # the 31st of February
        return None


_READ: Final[dict[str, Callable[[ListPaymentsRequest, str], Any]]] = {
    "status": _status,
    "customer_id": _customer_id,
    "created_gte": _created_gte,
    "created_lt": _created_lt,
    "limit": _limit,
    "cursor": _cursor,
}
