"""/openapi.json and /docs: bytes made once, when the shard starts, and the same from every shard.

The page brings everything with it: no script, no image, no other host; the policy it is sent with forbids
them, so that nothing that ever got into it could be run or could tell anyone of a reader.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.openapi.document import document
from gateway.openapi.page import Page, page

_CACHED: Final = "public, max-age=300"  # a new release may take that long to be seen


class _StaticRoute:
    def __init__(self, body: bytes, headers: dict[str, str]) -> None:
        self._body = body
        self._headers = headers
        self._etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'

    async def answer(self, request: Request) -> Response:
        told = {"etag": self._etag, "cache-control": _CACHED}
        known = ",".join(request.headers.getlist("if-none-match"))
        if self._etag in known or known.strip() == "*":
            return Response(status_code=304, headers=told)
        return Response(self._body, headers=told | self._headers)


def document_routes(psp_names: Iterable[str]) -> list[Route]:
    described = document(psp_names)
    openapi = _StaticRoute(orjson.dumps(described), {"content-type": "application/json"})
    docs = _StaticRoute(*_shown(page(described)))
    return [
        Route("/openapi.json", openapi.answer, name="openapi"),
        Route("/docs", docs.answer, name="docs"),
    ]


def _shown(page: Page) -> tuple[bytes, dict[str, str]]:
    policy = (
        f"default-src 'none'; style-src '{page.style_hash}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    headers = {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }
    return page.html, headers
