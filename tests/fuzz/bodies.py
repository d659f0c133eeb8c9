"""Bodies for POST /v1/payments that are nearly right: drawn from a grammar, written oddly, then damaged.

All choices are asked of one `Random`: a seeded one for long campaigns, hypothesis' own where a failure is to
be made small.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Final

Writer = Callable[[Random], str]

_STARTS: Final = (
    *("4", "51", "55", "2221", "2720", "34", "37", "6011", "644", "649", "65", "622126", "622925"),
    *("300", "305", "3095", "36", "38", "39", "3528", "3589", "62", "5018", "6304", "6759", "6763", "676770"),
    *("9", "1", "00", "2220", "2721", "306", "643", "7"),
)
_SEPARATORS: Final = ("", "", " ", "-", "  ", "_", ".", "\u00a0", "\u2010", "\t")
_NEIGHBOURS: Final = (
    "",
    "",
    "",
    " ",
    "x",
    "_",
    "-",
    "7",
    "é",
    "٣",
    "０",
    "²",
    "\n",
    ":",
    "\\",
    '"',
    "\0",
    "\u200b",
)
_ODD_TEXTS: Final = (
    *(
        "",
        "\0",
        "a\0b",
        ":",
        "a:b:c",
        '"',
        "\\",
        "\\u0000",
        "\n",
        "\x7f",
        "\u2028",
        "é",
        "😀",
        "\ufeff",
        "\uffff",
    ),
    *(
        "cvv",
        "CVC",
        "Pan",
        "pAN",
        "cvv2",
        "span",
        "ｐan",
        "٤١١١١١١١١١١١١١١١",
        "１２３４",
        "null",
        "1763720000000000",
    ),
    *("123e4567-e89b-42d3-a456-426614174000", "2026-11-21T10:00:00Z", "__proto__", "body", "amount"),
)
_CURRENCIES: Final = (
    "USD",
    "EUR",
    "JPY",
    "KWD",
    "CLF",
    "usd",
    "US",
    "USDX",
    "XAU",
    "XXX",
    "ZZZ",
    "USD\n",
    " USD",
    "ＵＳＤ",
)
_NUMBERS: Final = (
    *(
        "1",
        "1999",
        "99999999999",
        "0",
        "-1",
        "-0",
        "100000000000",
        "1.0",
        "1e2",
        "1E+2",
        "0.5",
        "1e999",
        "01",
        "+1",
    ),
    *(
        "NaN",
        "Infinity",
        "-Infinity",
        "4111111111111111",
        "9" * 40,
        "9" * 5000,
        "0x10",
        "1_000",
        "1.",
        ".5",
        "-",
        "１",
    ),
)
_LENGTHS: Final = {"payment_method": 255, "customer_id": 64, "description": 500, "return_url": 2048}
_GROUPS: Final = (
    (4, 4, 4, 4),
    (4, 6, 4),
    (4, 6, 5),
    (4, 4, 4, 3),
    (4, 5, 6),
    (6, 4, 4),
    (5, 4, 4, 3),
    (4, 4, 4, 4, 3),
)
_SHORT_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "/": "\\/"}


def checkout_id(random: Random) -> str:
    """Mostly a right one."""
    kind = random.randrange(20)
    if kind < 16:
        return "order-" + "".join(random.choices("0123456789abcdefXYZ_-", k=random.randrange(2, 20)))
    if kind == 16:
        return _digits(random)
    return random.choice(
        ("", "short", "x" * 64, "x" * 65, "order 0001", "order/0001", "örder-0001", _card(random))
    )


def body(random: Random, own_id: str) -> bytes:
    written = _object(random, _fields(random, own_id))
    kind = random.randrange(40)
    if kind == 0:
        written = random.choice(
            ("", "null", "[]", "1", '"x"', "{", "true", f"[{written}]", written * 2, f"{written},")
        )
    elif kind == 1:
        written = random.choice(("\ufeff", " ", "\f", "//x", "\0")) + written
    raw = written.encode("utf-8", "surrogatepass")
    return damaged(random, raw) if random.randrange(8) == 0 else raw


def _fields(random: Random, own_id: str) -> list[tuple[str, str]]:
    """(name, value as written) in the order they are sent."""
    writers: dict[str, Writer] = {
        "amount": lambda r: r.choice(_NUMBERS) if r.randrange(10) == 0 else str(r.randrange(1, 100_000)),
        "currency": lambda r: _string(r, r.choice(_CURRENCIES) if r.randrange(10) == 0 else "EUR"),
        "payment_method": lambda r: _string(r, _text(r, "payment_method")),
    }
    optional: dict[str, Writer] = {
        "capture": lambda r: _string(r, r.choice(("automatic", "manual", "manual", "Manual", "", "\0"))),
        "psp": lambda r: _string(r, r.choice(("simulator", "stripe", "stripe", "adyen", "", "Stripe"))),
        "metadata": _metadata,
        "payment_checkout_id": lambda r: _string(r, own_id if r.randrange(8) else own_id + "x"),
        **{name: lambda r, n=name: _string(r, _text(r, n)) for name in _LENGTHS if name != "payment_method"},  # type: ignore[misc]
    }
    chosen = {name: write for name, write in optional.items() if random.randrange(3) == 0}
    fields = [(name, write(random)) for name, write in (writers | chosen).items() if random.randrange(40)]
    if random.randrange(12) == 0:
        fields.append((random.choice((*_ODD_TEXTS, "colour", "Amount", _card(random))), _anything(random, 3)))
    if fields and random.randrange(20) == 0:
        name, _ = random.choice(fields)
        fields.append((name, _anything(random, 3) if random.randrange(2) else random.choice(fields)[1]))
    if fields and random.randrange(12) == 0:
        place = random.randrange(len(fields))
        fields[place] = (fields[place][0], _anything(random, 2))
    if random.randrange(3) == 0:
        random.shuffle(fields)
    return fields


def _text(random: Random, name: str) -> str:
    kind = random.randrange(16)
    if kind < 12:
        return f"pm_{random.randrange(10**6)}"
    if kind == 12:
        return random.choice("aé😀:") * (_LENGTHS[name] + random.randrange(-1, 2))
    if kind < 15:
        return _card(random)
    return random.choice(_ODD_TEXTS) + random.choice(_ODD_TEXTS)


def _metadata(random: Random) -> str:
    count = random.choice((0, 1, 1, 2, 3, 19, 20, 21)) if random.randrange(8) == 0 else random.randrange(3)
    pairs = []
    for number in range(count):
        kind = random.randrange(12)
        key = f"key-{number}"
        if kind == 0:
            key = random.choice((*_ODD_TEXTS, _card(random), "k" * 40, "é" * 41))
        value = _string(random, _text(random, "description")) if random.randrange(3) == 0 else '"v"'
        pairs.append((key, _anything(random, 2) if kind == 1 else value))
    if pairs and random.randrange(8) == 0:
        pairs.append(random.choice(pairs))
    return _object(random, pairs)


def _anything(random: Random, depth: int) -> str:
    kind = random.randrange(8 if depth else 5)
    if kind < 2:
        return random.choice(_NUMBERS)
    if kind == 2:
        return random.choice(("null", "null", "true", "false", "nul", "[", "}", "undefined"))
    if kind < 5:
        return _string(random, random.choice((*_ODD_TEXTS, _card(random))))
    if kind == 5:
        return f"[{','.join(_anything(random, depth - 1) for _ in range(random.randrange(3)))}]"
    if kind == 6 and random.randrange(8) == 0:
        deep = random.choice((90, 150, 250, 5000))
        return "[" * deep + "]" * deep
    names = (*_ODD_TEXTS, _card(random))
    pairs = [(random.choice(names), _anything(random, depth - 1)) for _ in range(random.randrange(3))]
    return _object(random, pairs)


def _digits(random: Random) -> str:
    """A card number's digits, or nearly: mostly with a right checksum."""
    start = random.choice(_STARTS)
    length = random.choice((12, 13, 14, 15, 16, 16, 16, 17, 18, 19, 20))
    digits = start + "".join(random.choices("0123456789", k=length - len(start) - 1))
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (1 if place % 2 else 2)
        total += doubled // 10 + doubled % 10
    check = -total % 10
    return digits + str(check if random.randrange(5) else (check + 1) % 10)


def _card(random: Random) -> str:
    digits = _digits(random)
    if random.randrange(2):
        separator = random.choice(_SEPARATORS)
        other = random.choice(_SEPARATORS) if random.randrange(6) == 0 else separator
        pieces, at = [], 0
        for length in random.choice(_GROUPS):
            pieces.append(digits[at : at + length])
            at += length
        digits = pieces[0] + "".join(random.choice((separator, other)) + piece for piece in pieces[1:])
    return random.choice(_NEIGHBOURS) + digits + random.choice(_NEIGHBOURS)


def _object(random: Random, pairs: list[tuple[str, str]]) -> str:
    space = random.choice(("", "", "", " ", "\n\t", "\r"))
    colon = f"{space}:{space}"
    return "{" + f",{space}".join(f"{_string(random, name)}{colon}{value}" for name, value in pairs) + "}"


def _string(random: Random, text: str) -> str:
    kind = random.randrange(8)
    if kind < 5:
        return json.dumps(text, ensure_ascii=False)
    if kind == 5:
        return json.dumps(text)
    written = "".join(_character(random, character) for character in text[:100]) + "".join(
        json.dumps(text[100:], ensure_ascii=False)[1:-1]
    )
    if random.randrange(12) == 0:
        written += random.choice(
            ("\\ud800", "\\udc00\\ud800", "\\ud83d\\ude00", "\\u00", "\\x41", "\x01", "\\", "\\U0041")
        )
    return f'"{written}"'


def _character(random: Random, character: str) -> str:
    kind = random.randrange(4)
    if kind == 0 and ord(character) < 0x10000:
        return f"\\u{ord(character):04{random.choice('xX')}}"
    if kind == 1 and character in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[character]
    return json.dumps(character, ensure_ascii=False)[1:-1]


def damaged(random: Random, raw: bytes) -> bytes:
    for _ in range(random.randrange(1, 4)):
        at = random.randrange(len(raw) + 1)
        kind = random.randrange(6)
        if kind == 0:
            raw = raw[:at] + raw[at + random.randrange(1, 4) :]
        elif kind == 1:
            raw = raw[:at] + bytes([random.randrange(256)]) + raw[at:]
        elif kind == 2:
            raw = raw[:at] + bytes([random.randrange(256)]) + raw[at + 1 :]
        elif kind == 3:
            raw = raw[:at]
        elif kind == 4:
            end = at + random.randrange(1, 20)
            raw = raw[:end] + raw[at:end] + raw[end:]
        else:
            raw = (
                raw[:at]
                + random.choice((b"\\", b'"', b",", b":", b"{}", b"\xc0\x80", b"\xed\xa0\x80", b"\0"))
                + raw[at:]
            )
    return raw
