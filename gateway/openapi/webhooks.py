"""POST /v1/webhooks/{psp}: for PSPs, not for clients."""

from __future__ import annotations

from typing import Any, Final

from gateway.openapi.answers import NO_STORE, Problems

_PSP: Final = {
    "name": "psp",
    "in": "path",
    "required": True,
    "description": "A PSP whose webhook secret this deployment has; any other is 404.",
    "schema": {"type": "string"},
    "example": "simulator",
}
_TAKEN: Final = {
    "description": "Verified and on disk. The body is what this PSP waits for.",
    "headers": NO_STORE,
    "content": {
        "application/json": {"schema": {"type": "object"}},
        "text/plain": {"schema": {"type": "string"}},
    },
}


def webhook_paths(problems: Problems) -> dict[str, Any]:
    return {
        "/v1/webhooks/{psp}": {
            "parameters": [_PSP],
            "post": {
                "operationId": "receiveWebhook",
                "tags": ["webhooks"],
                "summary": "Take in what a PSP tells",
                "description": "The body's signature, and its time where the PSP signs one, are checked "
                "before anything is stored; which headers carry them is the PSP's own rule. 200 means that "
                "the event is on disk here, whatever else is down; anything else means: deliver it again. A "
                "repeat is 200 too. Addresses that a PSP may call from can be limited (403).",
                "security": [],
                "requestBody": {"required": True, "content": {"*/*": {}}},
                "responses": {
                    "200": _TAKEN,
                    **problems.answers("unauthorized", "forbidden", "not_found", "not_ready"),
                },
            },
        }
    }
