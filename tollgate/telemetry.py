"""One way to log (structlog, JSON lines on stderr) and W3C trace context
(https://www.w3.org/TR/trace-context/).

What must never be logged (I8) is dropped by name here, as the last line of defence; the first is not
passing it.
"""

from __future__ import annotations

import io
import logging
import random
import re
import sys
from contextlib import suppress
from typing import Final, TextIO, cast

import structlog

_SECRET_NAMES: Final = frozenset(
    {
        "api_key",
        "authorization",
        "client_secret",
        "card",
        "pan",
        "cvv",
        "cvc",
        "secret",
        "password",
        "signing_key",
    }
)
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


# Ids of traces need to differ, not to be unguessable; asking the kernel for each costs more than admission.
_random = random.Random(random.SystemRandom().getrandbits(256))  # noqa: S311


def _drop_secrets(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    for name in _SECRET_NAMES & event.keys():
        event[name] = "[redacted]"
    return event


class _LossyStream(io.TextIOBase):
    """stderr, but a log on a full disk loses lines instead of breaking who writes them."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            sys.stderr.flush()


def configure_logging(part: str, level: str = "INFO") -> None:
    """Call once, in `__main__`. `part` is bound to every line (`shard-0`, `cdc-1`, `processor-0`)."""
    numeric = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _drop_secrets,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(numeric),
        logger_factory=structlog.PrintLoggerFactory(file=cast("TextIO", _LossyStream())),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(part=part)


def traceparent_or_new(incoming: str | None) -> str:
    """The caller's `traceparent` when it is well-formed, else a new sampled one."""
    if incoming is not None and _TRACEPARENT.fullmatch(incoming):
        return incoming
    return f"00-{_random.getrandbits(128) or 1:032x}-{_random.getrandbits(64) or 1:016x}-01"
