"""Streams of pipelined requests, most of them right, some broken in every way that HTTP can be broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.fixtures.shard import API_KEY
from tests.fuzz import bodies

AUTHORIZATION: Final = f"Bearer {API_KEY}"
SENTINEL: Final = b"GET /livez HTTP/1.1\r\nHost: shard\r\nConnection: close\r\n\r\n"


@dataclass
class Message:
    """A request in parts, so that each part can be broken by itself."""

    line: bytes
    headers: list[bytes]
    body: bytes = b""
    broken: bool = False

    def encode(self) -> bytes:
        return b"\r\n".join((self.line, *self.headers, b"", self.body))


@dataclass(frozen=True)
class Stream:
    messages: tuple[bytes, ...]  # the sentinel last
    sound: int  # so many of the first are as they should be
    pieces: tuple[bytes, ...]  # the same bytes as they are sent

    @property
    def raw(self) -> bytes:
        return b"".join(self.messages)


def stream(random: Random) -> Stream:
    own_id = f"wire-{random.getrandbits(64):016x}"
    messages = [_message(random, own_id) for _ in range(random.randrange(1, 6))]
    if random.randrange(4):
        broken = random.choice(messages)
        for _ in range(random.choice((1, 1, 1, 2))):
            random.choice(_BREAKAGES)(random, broken)
        broken.broken = True
    sound = next((n for n, message in enumerate(messages) if message.broken), len(messages) + 1)
    encoded = [message.encode() for message in messages]
    if sound < len(messages) and random.randrange(4) == 0:
        encoded[sound] = bodies.damaged(random, encoded[sound])
    encoded.append(SENTINEL)
    return Stream(tuple(encoded), sound, tuple(_pieces(random, b"".join(encoded))))


def _pieces(random: Random, raw: bytes) -> list[bytes]:
    cuts = sorted(random.sample(range(len(raw)), k=min(len(raw), random.choice((0, 0, 1, 3)))))
    return [raw[start:end] for start, end in zip((0, *cuts), (*cuts, len(raw)), strict=True) if start < end]


def _message(random: Random, own_id: str) -> Message:
    kind = random.randrange(10)
    host = [b"Host: shard"]
    signed = [*host, f"Authorization: {AUTHORIZATION}".encode()]
    if kind < 5:
        return _post(random, own_id, signed)
    if kind < 8:
        method = random.choice(("GET", "GET", "HEAD", "OPTIONS"))
        condition = [b'If-None-Match: "0"'] if random.randrange(4) == 0 else []
        return Message(f"{method} /v1/payments/{own_id} HTTP/1.1".encode(), [*signed, *condition])
    path = random.choice(("/livez", "/readyz", "/openapi.json", "/docs", "/nothing", "/v1/payments"))
    return Message(f"GET {path} HTTP/1.1".encode(), host)


def _post(random: Random, own_id: str, signed: list[bytes]) -> Message:
    if random.randrange(3):
        body = json.dumps(
            {"amount": random.randrange(1, 4), "currency": "EUR", "payment_method": "pm_ok"}
        ).encode()
    else:
        body = bodies.body(random, own_id)
    headers = [
        *signed,
        b"Content-Type: application/json",
        f"X-PAYMENT-CHECKOUT-ID: {own_id}".encode(),
    ]
    if random.randrange(2):
        headers.append(f"Content-Length: {len(body)}".encode())
        return Message(b"POST /v1/payments HTTP/1.1", headers, body)
    headers.append(b"Transfer-Encoding: chunked")
    return Message(b"POST /v1/payments HTTP/1.1", headers, _chunked(random, body))


def _chunked(random: Random, body: bytes) -> bytes:
    written, at = b"", 0
    while at < len(body):
        size = random.randrange(1, len(body) - at + 1)
        extension = random.choice((b"", b"", b"", b";a=b", b';x="y"'))
        written += (
            f"{size:{random.choice('xX')}}".encode() + extension + b"\r\n" + body[at : at + size] + b"\r\n"
        )
        at += size
    return written + random.choice((b"0\r\n\r\n", b"0\r\n\r\n", b"000\r\nX-Trailer: y\r\n\r\n"))


def _break_line(random: Random, message: Message) -> None:
    method, _, rest = message.line.partition(b" ")
    path, _, version = rest.partition(b" ")
    kind = random.randrange(4)
    if kind == 0:
        method = random.choice(
            (
                *_METHODS,
                method.lower(),
                method + b"X",
                b"",
                b" " + method,
                method + b"\t",
                b"G\0T",
                b"A" * 300,
            )
        )
    elif kind == 1:
        path = random.choice(
            (*_PATHS, b"http://shard" + path, path + b"/", b"/" + path, path + b"?" + b"q" * 40)
        )
    elif kind == 2:
        version = random.choice(_VERSIONS)
    else:
        message.line = random.choice(
            (b"", b"\0", b"GET", message.line + b" x", message.line.replace(b" ", b"  "))
        )
        return
    message.line = b" ".join((method, path, version))


_METHODS: Final = (
    b"TRACE",
    b"CONNECT",
    b"PUT",
    b"DELETE",
    b"PATCH",
    b"PRI",
    b"M-SEARCH",
    b"QUERY",
    b"OPTIONS",
)
_PATHS: Final = (
    *(
        b"*",
        b"/",
        b"",
        b"//v1/payments",
        b"/v1/./payments",
        b"/v1/../v1/payments",
        b"/v1%2fpayments",
        b"/%00",
    ),
    *(
        b"/v1/payments/",
        b"/v1/payments/%ff%fe%fd%fc",
        b"/v1/payments/order%0d%0aX",
        b"/metrics",
        b"/" + b"p" * 9000,
    ),
    *(
        b"/v1/payments?client_secret=x",
        b"/v1/payments#f",
        b"/\xc3\xa9",
        b"/v1/payments;x",
        b"/%zz",
        b"shard:443",
    ),
)
_VERSIONS: Final = (
    *(b"", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.2", b"HTTP/1.10", b"http/1.1", b"HTTP/1.1x"),
    *(b"HTTP/11", b"HTP/1.1", b"HTTP/1.1 ", b"HTTP/7.0", b"HTTP/1,1"),
)


def _break_header(random: Random, message: Message) -> None:
    if not message.headers:
        return
    at = random.randrange(len(message.headers))
    name, _, value = message.headers[at].partition(b": ")
    kind = random.randrange(7)
    if kind == 0:
        del message.headers[at]
    elif kind == 1:
        message.headers.insert(at, message.headers[at])
    elif kind == 2:
        message.headers[at] = random.choice(
            (
                *(
                    name,
                    name + value,
                    name + b" : " + value,
                    b": " + value,
                    name + b":" + value,
                    b" " + name + b":x",
                ),
                *(name + b":\t " + value + b" \t", name.swapcase() + b": " + value, name + b": \0" + value),
                *(
                    name + b": " + value + b"\r\n folded",
                    name + b": a\rb",
                    name + b": \x7f\x01",
                    name + b": \xff",
                ),
                name.replace(b"-", b"_") + b": " + value,
            )
        )
    elif kind == 3:
        message.headers.append(b"X-Big: " + b"b" * random.choice((100, 7_000, 9_000, 40_000)))
    elif kind == 4:
        message.headers += [b"X-Many: y"] * random.choice((10, 80, 120, 3_000))
    else:
        message.headers.append(random.choice(_HEADERS))


_HEADERS: Final = (
    *(
        b"Connection: close",
        b"Connection: keep-alive",
        b"Connection: Close, x",
        b"Connection: upgrade\r\nUpgrade: h2c",
    ),
    *(
        b"Expect: 100-continue",
        b"Expect: 999-nothing",
        b"Upgrade: websocket",
        b"Host: other",
        b"Host: a b",
        b"Host:",
    ),
    *(
        b"X-PAYMENT-CHECKOUT-ID: another-one-1",
        b"Authorization: Basic eDp5",
        b"Authorization: Bearer nobodys",
    ),
    *(b"Content-Type: text/plain", b"Content-Length: 0", b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    *(
        b"If-None-Match: *",
        b'If-None-Match: "',
        b"Range: bytes=0-1",
        b"TE: trailers",
        b"Trailer: x",
        b"Via: 1.1 x",
    ),
    *(b"traceparent: 00-4111111111111111-x", b"X-Forwarded-For: \xff", b"Cookie: " + b"c=1; " * 100, b"X: "),
)


def _break_length(random: Random, message: Message) -> None:
    for at, header in enumerate(message.headers):
        if header.startswith((b"Content-Length", b"Transfer-Encoding")):
            message.headers[at] = (
                random.choice(_FRAMINGS) if random.randrange(3) else _other_length(random, header)
            )
            return
    message.headers.append(random.choice(_FRAMINGS))


def _other_length(random: Random, header: bytes) -> bytes:
    name, _, value = header.partition(b": ")
    if not value.isdigit():
        return header + b"\r\nContent-Length: 3"
    length = int(value)
    return random.choice(
        (
            *(b"%s: %d" % (name, other) for other in (length - 1, length + 1, length + 60, 0, length * 7)),
            *(
                b"%s: +%d" % (name, length),
                b"%s: %d, %d" % (name, length, length),
                b"%s: 0%d" % (name, length),
            ),
            b"%s: %d\r\n%s: %d" % (name, length, name, length + 1),
        )
    )


_FRAMINGS: Final = (
    *(
        b"Content-Length: -1",
        b"Content-Length: 0x10",
        b"Content-Length: ",
        b"Content-Length: 99999999999999999999",
    ),
    *(b"Content-Length: 65537", b"Content-Length: 1 2", b"Content-Length: 5\r\nTransfer-Encoding: chunked"),
    *(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding: xchunked"),
    *(
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding : chunked",
    ),
    *(b"Transfer-Encoding: Chunked", b"Transfer-Encoding:\tchunked", b"Transfer-Encoding: chun\tked"),
    *(b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", b"X: y"),
)


def _break_body(random: Random, message: Message) -> None:
    kind = random.randrange(5)
    if kind == 0:
        message.body = message.body[: random.randrange(len(message.body) + 1)]
    elif kind == 1:
        message.body += random.choice((b"\r\n", b"\r\n\r\n", b"0\r\n\r\n", b"x", SENTINEL))
    elif kind == 2:
        size = random.choice(
            (b"g", b"-1", b"0x5", b"", b"ffffffffffffffff", b"fffffffffffffffff", b" 5", b"5;\0", b"5\n")
        )
        message.body = size + b"\r\n" + message.body
    elif kind == 3:
        message.body = message.body.replace(
            b"\r\n", random.choice((b"\n", b"\r", b"", b"\r\n\r\n", b"\r\r\n"))
        )
    else:
        message.body = b" " * random.choice((65_536, 65_537, 200_000)) + message.body


def _break_bytes(random: Random, message: Message) -> None:
    message.line = bodies.damaged(random, message.line)


def _break_ends(_random: Random, message: Message) -> None:
    message.headers = [b"\n".join((header, b"X-Bare: lf")) for header in message.headers]


_BREAKAGES: Final[tuple[Callable[[Random, Message], None], ...]] = (
    *(_break_line, _break_header, _break_header, _break_length, _break_length),
    *(_break_body, _break_body, _break_bytes, _break_ends),
)
