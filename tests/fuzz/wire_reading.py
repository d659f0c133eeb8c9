"""What a stream of bytes says in HTTP/1.1, read plainly after RFC 9112: the requests in it, and how it ends.

It takes what a server may take (bare LF, empty lines, more spaces, odd names) and nothing beyond. A server
may be stricter and refuse; one that finds a request where this finds none, or another one, can be talked into
taking a body for a request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote

_NAME = re.compile(rb"[^\0-\x20:\x7f]+")
_REQUEST_LINE = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) +([\x21-\x7e\x80-\xff]+) +HTTP/([0-9])\.([0-9]{1,3}) *"
)
_VALUE = re.compile(rb"[^\0\r\n]*")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")


class End(Enum):
    COMPLETE = "every byte belongs to a request"
    INCOMPLETE = "more bytes are needed"
    MALFORMED = "no HTTP from here on"


@dataclass(frozen=True)
class Read:
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]  # names in lower case
    body: bytes
    is_last: bool  # the client asks for the connection's end after it

    @property
    def path(self) -> str:
        """Decoded; an absolute address without what is before its path."""
        return unquote(re.sub("^https?://[^/?]*", "", self.target).partition("?")[0])

    def all(self, name: str) -> list[str]:
        return [value for known, value in self.headers if known == name]


class _Unreadable(Exception):
    def __init__(self, end: End) -> None:
        super().__init__(end.value)
        self.end = end


def read(stream: bytes) -> tuple[list[Read], End, bytes]:
    """The requests, how the stream ends, and the bytes from the first that is no request on."""
    requests: list[Read] = []
    at = 0
    while at < len(stream):
        try:
            request, at = _request(stream, at)
        except _Unreadable as error:
            return requests, error.end, stream[at:]
        requests.append(request)
    return requests, End.COMPLETE, b""


def _request(stream: bytes, at: int) -> tuple[Read, int]:
    line, at = _line(stream, at)
    while line.strip(b"\r") == b"":
        line, at = _line(stream, at)
    match = _REQUEST_LINE.fullmatch(line.lstrip(b"\r"))
    if match is None:
        raise _Unreadable(End.MALFORMED)
    headers, at = _fields(stream, at)
    named = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers]
    body, at = _body(stream, at, named)
    tokens = [
        token.strip().lower() for name, value in named if name == "connection" for token in value.split(",")
    ]
    is_last = "close" in tokens or ((match[3] != b"1" or match[4] == b"0") and "keep-alive" not in tokens)
    return Read(match[1].decode(), match[2].decode("latin-1"), tuple(named), body, is_last), at


def _fields(stream: bytes, at: int) -> tuple[list[tuple[bytes, bytes]], int]:
    fields: list[tuple[bytes, bytes]] = []
    while True:
        line, at = _line(stream, at)
        if line == b"":
            return fields, at
        name, _, value = line.partition(b":")
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise _Unreadable(End.MALFORMED)
        fields.append((name, value.strip(b" \t")))


def _body(stream: bytes, at: int, headers: list[tuple[str, str]]) -> tuple[bytes, int]:
    lengths = [value for name, value in headers if name == "content-length"]
    codings = [value for name, value in headers if name == "transfer-encoding"]
    if codings:
        # Both, or any coding but chunked once: RFC 9112, 6.1 and 6.3 let a server refuse.
        if lengths or [coding.lower() for coding in codings] != ["chunked"]:
            raise _Unreadable(End.MALFORMED)
        return _chunks(stream, at)
    if not lengths:
        return b"", at
    if len(lengths) > 1 or not re.fullmatch("[0-9]{1,15}", lengths[0]):
        raise _Unreadable(End.MALFORMED)
    return _exactly(stream, at, int(lengths[0]))


def _chunks(stream: bytes, at: int) -> tuple[bytes, int]:
    body = b""
    while True:
        line, at = _line(stream, at)
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise _Unreadable(End.MALFORMED)
        size = int(match[1], 16)
        if size == 0:
            while line != b"":  # trailers are nobody's, whatever they look like
                line, at = _line(stream, at)
            return body, at
        chunk, at = _exactly(stream, at, size)
        line, at = _line(stream, at)
        if line != b"":
            raise _Unreadable(End.MALFORMED)
        body += chunk


def _line(stream: bytes, at: int) -> tuple[bytes, int]:
    end = stream.find(b"\n", at)
    if end < 0:
        raise _Unreadable(End.INCOMPLETE)
    return stream[at:end].removesuffix(b"\r"), end + 1


def _exactly(stream: bytes, at: int, length: int) -> tuple[bytes, int]:
    if at + length > len(stream):
        raise _Unreadable(End.INCOMPLETE)
    return stream[at : at + length], at + length
