"""Asking a part whether it is ready: one small HTTP request, no client library in the supervisor."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

Probe = Callable[[], Awaitable[bool]]

_TIMEOUT_S: Final = 2.0


def http_probe(address: str, path: str = "/readyz") -> Probe:
    """A probe that says True when `path` at `address` (host:port) answers 200. Never raises for "not yet"."""
    host, _, port = address.rpartition(":")

    async def is_ready() -> bool:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return await _status(host, int(port), path) == b"200"
        except (OSError, TimeoutError, ValueError):
            return False

    return is_ready


async def _status(host: str, port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        return (await reader.readline()).split(b" ")[1:2].pop()
    except IndexError:
        return b""
    finally:
        writer.close()
