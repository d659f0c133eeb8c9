"""Stripe's library over this processor's own connections: the stored bytes, once, bounded.

The library's own clients follow redirects with the body, read an answer without end, and send a form as they
encode it today. This one sends what was stored, follows nothing, reads so far and no further, and says of a
failure whether a connection stood: its session's time-outs are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import aiohttp
import orjson
import stripe

ANSWER_BYTES_MAX: Final = 2_097_152  # a list of a hundred PaymentIntents is some 300 kB
_CHUNK_BYTES: Final = 65_536
_SILENT: Final = b'{"error":{}}'


class NeverConnected(stripe.APIConnectionError):
    """Nothing was sent."""

    def __init__(self, error: Exception) -> None:
        super().__init__(f"no connection: {type(error).__name__}")  # type: ignore[no-untyped-call]


class NoWholeAnswer(stripe.APIConnectionError):
    """It may have been executed."""

    def __init__(self, error: Exception) -> None:
        super().__init__(f"no whole answer: {type(error).__name__}")  # type: ignore[no-untyped-call]


class OneRequest(stripe.HTTPClient):
    """A POST carries `body`, whatever the library made of it; a GET has none."""

    name = "aiohttp"

    def __init__(self, session: aiohttp.ClientSession, body: bytes = b"") -> None:
        super().__init__()
        self._session = session
        self._body = body

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: object = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """aiohttp sends a POST once and never again by itself, on a stale connection either."""
        body = self._body if method == "post" else None
        try:
            async with self._session.request(
                method, url, data=body, headers=headers, allow_redirects=False
            ) as response:
                return _readable(response.status, await _read(response)), response.status, response.headers
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NeverConnected(error) from error
        except (TimeoutError, aiohttp.ClientError) as error:
            raise NoWholeAnswer(error) from error


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The whole body; nothing when it is longer than any answer."""
    answer = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        answer += chunk
        if len(answer) > ANSWER_BYTES_MAX:
            response.close()
            return b""
    return bytes(answer)


def _readable(status: int, answer: bytes) -> bytes:
    """What the library can read without tripping: text, and of a refusal an error object. What comes from
    something before Stripe is neither, and is handed on as an answer that says nothing.
    """
    try:
        document = orjson.loads(answer)
    except orjson.JSONDecodeError:
        document = None
    if 200 <= status < 300:
        return answer if isinstance(document, dict) else _SILENT
    is_told = isinstance(document, dict) and isinstance(document.get("error"), dict)
    return answer if is_told else _SILENT
