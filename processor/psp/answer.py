"""How a PSP's HTTP answer is read: bounded, and without believing anything of its shape."""

from __future__ import annotations

from typing import Any, Final

import aiohttp
import orjson

ANSWER_BYTES_MAX: Final = 65_536
TEXT_MAX: Final = 500  # of what a refusal says, as it is kept


async def read_bounded(response: aiohttp.ClientResponse) -> bytes:
    """The whole body; nothing when it is longer than any answer."""
    answer = bytearray()
    async for chunk in response.content.iter_chunked(ANSWER_BYTES_MAX):
        answer += chunk
        if len(answer) > ANSWER_BYTES_MAX:
            response.close()
            return b""
    return bytes(answer)


def document_in(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`; empty when it holds none."""
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def text_in(document: dict[str, Any], name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""


def told_in(document: dict[str, Any], name: str) -> str:
    """A PSP's own words: bounded, and without the one character that Postgres can't store."""
    return text_in(document, name).replace("\0", "")[:TEXT_MAX]


def seconds_in(retry_after: str | None) -> float | None:
    if retry_after is None or not retry_after.isascii() or not retry_after.isdigit():
        return None
    return float(retry_after)
