"""The contract of a PSP's webhook verifier.

1. The signature is computed over the bytes as they came, under every secret that is valid now, and compared
   in constant time. Nothing of the body is believed before.
2. Where the PSP signs a time, it lies within `REPLAY_WINDOW_S` of now. Where it signs none, an old event is
   told from a new one by its id alone, as every event is.
3. Then the body is read, only as far as the ids of its events. What they mean is nobody's question here.
4. A verifier never raises for what it is sent, and no reason repeats any of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

REPLAY_WINDOW_S: Final = 300.0

_EVENT_ID: Final = re.compile(r"[!-~]{1,255}")


class Headers(Protocol):
    """Names are asked for in lower case; the first value, or None."""

    def get(self, name: str, /) -> str | None: ...


class WebhookEvent(NamedTuple):
    """`event_id` is the same for every delivery of the event, and no other event of the PSP has it. `body` is
    what the processor's reader gets: the body as it was signed, or the part of it that is this event.
    """

    event_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Verified:
    """The PSP said so. One event, or several where a PSP sends them together."""

    events: tuple[WebhookEvent, ...]


@dataclass(frozen=True, slots=True)
class Unverified:
    """Not proven to be the PSP's word, or not proven to be of now: 401, and nothing is stored."""

    reason: str


@dataclass(frozen=True, slots=True)
class Malformed:
    """Proven, and yet no event: 400, and nothing is stored."""

    reason: str


class Acknowledgement(NamedTuple):
    """What this PSP wants to read beside a 200 before it counts an event as delivered."""

    content_type: str
    body: bytes


class WebhookVerifier(Protocol):
    """Frozen. Made of the secrets that are valid now; raises ConfigurationError for one that can't be."""

    @property
    def acknowledgement(self) -> Acknowledgement: ...

    def verify(self, headers: Headers, body: bytes, now_s: float) -> Verified | Unverified | Malformed:
        """`now_s` is Unix time."""
        ...


def is_event_id(text: str) -> bool:
    """What the change log, Kafka's key and the inbox can hold: 1-255 visible ASCII characters."""
    return _EVENT_ID.fullmatch(text) is not None
