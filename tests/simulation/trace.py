"""What happened, in order, line by line: the same seed gives the same lines, byte for byte."""

from __future__ import annotations

import hashlib


class Trace:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, at_us: int, who: str, what: str) -> None:
        self.lines.append(f"{at_us / 1e6:12.6f} {who:12} {what}")

    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()
