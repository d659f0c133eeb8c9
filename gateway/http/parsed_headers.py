"""A request's headers as llhttp hands them over."""

from __future__ import annotations

from typing import Final

# Clients send the same few names over and over; what a made-up name costs is its sender's.
_KNOWN_NAMES_MAX: Final = 256
_known_names: Final[dict[bytes, str]] = {}


class ParsedHeaders:
    """Names in lower case, values as Latin-1 without the white space around them, decoded when asked for."""

    __slots__ = ("_first", "_repeated")

    def __init__(self) -> None:
        self._first: dict[str, bytes] = {}
        self._repeated: list[tuple[str, bytes]] = []

    def add(self, name: bytes, value: bytes) -> None:
        known = _known_names.get(name) or _lower_case(name)
        if known in self._first:
            self._repeated.append((known, value))
        else:
            self._first[known] = value

    def get(self, name: str) -> str | None:
        first = self._first.get(name)
        return None if first is None else _text(first)

    def get_all(self, name: str) -> list[str]:
        first = self._first.get(name)
        if first is None:
            return []
        if not self._repeated:
            return [_text(first)]
        return [_text(first), *(_text(value) for known, value in self._repeated if known == name)]

    def items(self) -> list[tuple[str, str]]:
        return [(name, _text(value)) for name, value in (*self._first.items(), *self._repeated)]


def _lower_case(name: bytes) -> str:
    known = name.decode("latin-1").lower()
    if len(_known_names) < _KNOWN_NAMES_MAX:
        _known_names[name] = known
    return known


def _text(value: bytes) -> str:
    return value.decode("latin-1").rstrip(" \t")
