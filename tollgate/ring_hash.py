"""Who owns a key: nginx's ketama ring, computed to the same points.

Source: nginx `ngx_http_upstream_hash_module.c` (`hash … consistent`): for each server 160 points a
weight, point n = crc32(HOST NUL PORT point[n-1]) with the previous point as four little-endian bytes,
HOST and PORT split at the last colon of the server's name as written. A key belongs to the first point at
or after crc32(key), wrapping round. On equal points the first server in order of configuration wins
(nginx sorts with a stable-enough sort and drops later equals; a test compares this module against a
running nginx).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from typing import Final
from zlib import crc32

POINTS_PER_WEIGHT: Final = 160
# Where a payment may be on one ring: its owner, and the next two that fail-over may have sent it to.
HOLDERS: Final = 3
_HOST_PORT = re.compile(rb"(.*):([0-9]*)", re.DOTALL)


class Ring:
    """An immutable ring over server names. Look-ups are O(log points)."""

    def __init__(self, names: Sequence[str]) -> None:
        if not names:
            raise ValueError("a ring has at least one server")
        if len(set(names)) != len(names):
            raise ValueError("the names on a ring differ")
        points: dict[int, int] = {}
        for index, name in enumerate(names):
            for point in _points(name.encode()):
                points.setdefault(point, index)
        self.names = tuple(names)
        self._points = sorted(points)
        self._owners = [points[point] for point in self._points]

    def owner(self, key: str) -> str:
        """The name of the server that owns `key`."""
        return self.names[self._owners[self._start(key)]]

    def owner_at(self, point: int) -> str:
        """The name of the server that owns the keys whose crc32 is `point`."""
        return self.names[self._owners[bisect_left(self._points, point) % len(self._points)]]

    @property
    def points(self) -> Sequence[int]:
        """Where its arcs end, ascending: all keys between two of them have one owner."""
        return self._points

    def preference(self, key: str, count: int) -> list[str]:
        """The owner and the next distinct servers clockwise, at most `count`: the order of fail-over.

        nginx tries them in this order, from point to point, until it has seen 20 points of servers that it
        tried; then it takes any other. For the first two moves that is one key in a million.
        """
        start = self._start(key)
        found: dict[int, None] = {}
        for offset in range(len(self._owners)):
            found[self._owners[(start + offset) % len(self._owners)]] = None
            if len(found) == min(count, len(self.names)):
                break
        return [self.names[index] for index in found]

    def _start(self, key: str) -> int:
        return bisect_left(self._points, crc32(key.encode())) % len(self._points)


@lru_cache(maxsize=128)  # rings that follow each other have most of their servers in common
def _points(name: bytes) -> tuple[int, ...]:
    if name.startswith(b"unix:"):
        host, port = name[5:], b""
    elif match := _HOST_PORT.fullmatch(name):
        host, port = match.groups()
    else:
        host, port = name, b""
    base = crc32(port, crc32(b"\0", crc32(host)))
    points = []
    previous = b"\0\0\0\0"
    for _ in range(POINTS_PER_WEIGHT):
        point = crc32(previous, base)
        points.append(point)
        previous = point.to_bytes(4, "little")
    return tuple(points)
