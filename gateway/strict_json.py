"""A JSON object as a client sent it: every key and every value is looked at, and nothing of a refused one is
told back. Pure.

Refused wherever they stand: keys that come twice, NUL, card numbers, keys that name card data. `Form` adds
what the fields of one body must be, and lists everything that is wrong with it, each once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from types import MappingProxyType
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec
import orjson

from gateway.card_numbers import holds_card_number

FORBIDDEN_KEYS: Final = frozenset({"cvv", "cvc", "pan"})
CARD_RULE: Final = "holds a card number; send the PSP's token in its place"
_CARD_KEY_RULE: Final = "is card data, which is not taken here; send the PSP's token in its place"
_NOT_JSON: Final = "is not valid JSON in UTF-8"
_PLAIN_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,39}")
_parse_pairs: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

T = TypeVar("T", bound=msgspec.Struct)
Checks = Mapping[str, Callable[[Any], bool]]
_NO_CHECKS: Final[Checks] = MappingProxyType({})


class FieldProblem(NamedTuple):
    field: str
    message: str


NOT_JSON: Final = FieldProblem("body", _NOT_JSON)


@dataclass(frozen=True, slots=True)
class Rejected:
    problems: tuple[FieldProblem, ...]


class Form(Generic[T]):
    """What one kind of body is: `rules` says in words what each field of `shape` must be."""

    def __init__(self, shape: type[T], rules: Mapping[str, str], noun: str) -> None:
        fields = msgspec.structs.fields(shape)
        self._rules = rules
        self._noun = noun
        self._required = frozenset(field.encode_name for field in fields if field.required)
        self._parse = msgspec.json.Decoder(shape).decode
        self._parse_field = {
            field.encode_name: msgspec.json.Decoder(_without_unset(field.type)).decode for field in fields
        }

    def read(self, body: bytes) -> T | Rejected:
        problems = self.problems(body)
        if problems:
            return Rejected(problems)
        try:
            return self._parse(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return Rejected((NOT_JSON,))

    def problems(self, body: bytes, also: Checks = _NO_CHECKS) -> tuple[FieldProblem, ...]:
        """`also`: what must hold of a field beside its type."""
        try:
            orjson.loads(body)  # strict, where the reader below is not
            read = json.loads(body.decode(), object_pairs_hook=_Pairs, parse_int=_unread, parse_float=_unread)
        except (ValueError, RecursionError):
            return (NOT_JSON,)
        if type(read) is not _Pairs:
            found = [FieldProblem("body", "must be a JSON object")]
        else:
            found = list(self._field_problems(_parse_pairs(body), also))
        return tuple(dict.fromkeys([*found, *_inspect(read, None)]))

    def _field_problems(self, fields: dict[str, msgspec.Raw], also: Checks) -> Iterator[FieldProblem]:
        for name, rule in self._rules.items():
            raw = fields.get(name)
            if raw is None:
                if name in self._required:
                    yield FieldProblem(name, f"is required and {rule}")
                continue
            try:
                value = self._parse_field[name](raw)
            except (msgspec.DecodeError, RecursionError):
                yield FieldProblem(name, rule)
            else:
                if name in also and not also[name](value):
                    yield FieldProblem(name, rule)
        for name in fields.keys() - self._rules.keys():
            yield FieldProblem(printable(name), f"is not a field of {self._noun}")


def printable(name: str) -> str:
    """The name of a field the client made up, when repeating it can't repeat a number."""
    few_digits = sum(map(str.isdigit, name)) < 5
    return name if few_digits and _PLAIN_NAME.fullmatch(name) else "(a field whose name is not repeated)"


def text_problems(text: str, field: str) -> Iterator[FieldProblem]:
    if "\0" in text:
        yield FieldProblem(field, "holds a NUL character")
    if holds_card_number(text):
        yield FieldProblem(field, CARD_RULE)


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as it was sent: order and duplicates kept."""


def _unread(_number: str) -> None:
    return None


def _without_unset(kind: Any) -> Any:
    """UNSET is for fields that are not there; these are."""
    kinds = getattr(kind, "__args__", ())
    if msgspec.UnsetType not in kinds:
        return kind
    return reduce(or_, (one for one in kinds if one is not msgspec.UnsetType))


def _inspect(value: object, field: str | None) -> Iterator[FieldProblem]:
    """`field` is the top-level field that `value` stands under, None for the body itself."""
    if isinstance(value, str):
        yield from text_problems(value, field or "body")
    elif isinstance(value, _Pairs):
        seen: set[str] = set()
        for key, item in value:
            name = field or printable(key)
            if key in seen:
                yield FieldProblem(name, "holds a key more than once" if field else "appears more than once")
            seen.add(key)
            if key.casefold() in FORBIDDEN_KEYS:
                yield FieldProblem(name, _CARD_KEY_RULE)
            yield from text_problems(key, name)
            yield from _inspect(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _inspect(item, field)
