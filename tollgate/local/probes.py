"""Asking a part over HTTP: a small request on a connection of its own, without a client library."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

Probe = Callable[[], Awaitable[bool]]

_TIMEOUT_S: Final = 2.0


def http_probe(address: str, path: str = "/readyz") -> Probe:
    """A probe that says True when `path` at `address` (host:port) answers 200. Never raises for "not yet"."""

    async def is_ready() -> bool:
        return await fetch(address, path) is not None

    return is_ready


async def fetch(address: str, path: str) -> bytes | None:
    """The body, when `path` at `address` (host:port) answers 200 in time; else None."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            head, _, body = (await _get(host, int(port), path)).partition(b"\r\n\r\n")
    except (OSError, TimeoutError, ValueError):
        return None
    return body if head.split(b" ", 2)[1:2] == [b"200"] else None


async def _get(host: str, port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        return await reader.read()
    finally:
        writer.close()
