"""A request and a response as the handlers know them: no server's types, no streaming."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from gateway.planner import Entry, Result


class Headers(Protocol):
    """Names are asked for in lower case."""

    def get(self, name: str) -> str | None:
        """The first value, or None."""
        ...

    def get_all(self, name: str) -> list[str]: ...

    def items(self) -> Iterable[tuple[str, str]]: ...


@dataclass(slots=True)  # frozen, it would cost three times as much to make
class Request:
    """`path` is percent-decoded, `query` as it was sent. `body` is None when it was too large."""

    method: str
    path: str
    query: str
    headers: Headers
    body: bytes | None


class Response(NamedTuple):
    """Header names in lower case. The server adds content-length and date."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Pending(NamedTuple):
    """What must be committed before there is an answer; `finish` makes it from the result."""

    entry: Entry
    finish: Callable[[Result], Response]


class Asking(NamedTuple):
    """Others must be asked before there is an answer, or before it is known what must be committed."""

    step: Coroutine[Any, Any, Response | Pending]


Respond = Callable[[Response], None]
# Hot handlers don't wait: they answer at once or say what the answer waits for.
Handler = Callable[[Request], Response | Pending | Asking]
