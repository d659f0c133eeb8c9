"""What the supervisor needs to know of a process to run it: one frozen description, no behaviour."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


def _nothing_to_prepare() -> None:
    return None


@dataclass(frozen=True)
class Part:
    """One process of the stack.

    `prepare` is blocking and idempotent (format a store, render a configuration) and runs before every
    start. `is_ready` is asked again and again until it says True; it never raises for "not yet". `user` and
    `group` are given only when a process must not run as root.
    """

    name: str  # "kafka", "shard-0"
    argv: tuple[str, ...]
    cwd: Path
    log: Path
    is_ready: Callable[[], Awaitable[bool]]
    env: Mapping[str, str] = field(default_factory=dict)  # added to the supervisor's own
    prepare: Callable[[], None] = _nothing_to_prepare
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 10.0
    user: int | None = None
    group: int | None = None
