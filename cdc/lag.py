"""How far delivery is behind the log: in changes, in bytes, in seconds. Pure.

What has not been read yet counts too. Its bytes are an estimate, at the mean size of what was read; its age
is that of the oldest change in flight, because nothing is read out of order, and while nothing is in flight
(a halt, a store that can't be opened) at least as long as the log has been seen waiting.
"""

from __future__ import annotations

from typing import NamedTuple

from cdc.cursor import Delivered


class Lag(NamedTuple):
    records: int
    bytes: int
    seconds: float


class LagMeter:
    """One per process; looks several times a second."""

    def __init__(self) -> None:
        self._waiting: tuple[int, int] | None = None  # for the change after this one, since then

    def measure(self, durable: int, delivered: Delivered, now_us: int) -> Lag:
        records = max(0, durable - delivered.prefix)
        if records == 0:
            self._waiting = None
            return Lag(0, 0, 0.0)
        if self._waiting is None or self._waiting[0] != delivered.prefix:
            self._waiting = delivered.prefix, now_us
        since_us = delivered.oldest_in_flight_us()
        if since_us is None:
            since_us = self._waiting[1]
        unread = max(0, records - delivered.in_flight)
        size = delivered.in_flight_bytes + round(unread * delivered.mean_bytes)
        return Lag(records, size, max(0, now_us - since_us) / 1e6)
