"""A request's headers as llhttp hands them over."""

from __future__ import annotations


class ParsedHeaders:
    """Names in lower case, values as Latin-1 without the white space around them."""

    __slots__ = ("_first", "_repeated")

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._repeated: list[tuple[str, str]] = []

    def add(self, name: bytes, value: bytes) -> None:
        known, text = name.decode("latin-1").lower(), value.decode("latin-1").rstrip(" \t")
        if known in self._first:
            self._repeated.append((known, text))
        else:
            self._first[known] = text

    def get(self, name: str) -> str | None:
        return self._first.get(name)

    def get_all(self, name: str) -> list[str]:
        first = self._first.get(name)
        if first is None:
            return []
        if not self._repeated:
            return [first]
        return [first, *(value for known, value in self._repeated if known == name)]

    def items(self) -> list[tuple[str, str]]:
        return [*self._first.items(), *self._repeated]
