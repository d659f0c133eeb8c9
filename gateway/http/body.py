"""Reading a body within bounds of size and time, whichever server it comes from."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Final

from gateway.http.message import Headers
from gateway.http.payments import BODY_BYTES_MAX
from gateway.http.problems import Problem

BODY_TIMEOUT_S: Final = 10.0
# A body that is too large is read on up to here, so that its sender gets to see the answer: a connection that
# is closed on unread bytes is reset.
DISCARDED_BYTES_MAX: Final = 1024 * 1024


def has_body(headers: Headers) -> bool:
    return headers.get("content-length") not in (None, "0") or headers.get("transfer-encoding") is not None


def foreign_coding(headers: Headers) -> Problem | None:
    """Parsers are content when `chunked` comes last, and would hand on what is still gzip, say."""
    codings = headers.get_all("transfer-encoding")
    if not codings or [coding.lower() for coding in codings] == ["chunked"]:
        return None
    return Problem(
        "invalid_request",
        "A body comes with a Content-Length, or chunked alone.",
        headers=[("connection", "close")],
    )


def is_known_small(headers: Headers) -> bool:
    """Whether the body is announced to be within bounds; servers hold a sender to what it announced."""
    length = headers.get("content-length")
    return length is not None and len(length) <= 5 and length.isdecimal() and int(length) <= BODY_BYTES_MAX


async def bounded(chunks: AsyncIterable[bytes]) -> bytes | None:
    """The whole body, or None when it is larger than allowed."""
    parts: list[bytes] = []
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size <= BODY_BYTES_MAX:
            parts.append(chunk)
        else:
            parts.clear()
            if size > DISCARDED_BYTES_MAX:
                break
    return None if size > BODY_BYTES_MAX else b"".join(parts)


def too_slow() -> Problem:
    return Problem(
        "request_timeout",
        f"The body did not arrive within {BODY_TIMEOUT_S:g} s. Retry with the same id.",
        headers=[("connection", "close")],
    )
