"""How often one merchant's keys may ask this shard: GCRA, one number a merchant.

A limit is a shard's own: with n shards on the ring a merchant gets n times as much, since ids spread evenly
over them. A shard needs to ask nobody for it, and a change of the ring changes nothing. What a browser reads
with a client_secret is not its merchant's doing; addresses are limited by nginx (`tollgate/nginx_config.py`).

Source: ITU-T I.371, the generic cell rate algorithm as virtual scheduling. Bounded: at most `keys_max`
merchants are remembered, and who has not asked for the longest time is forgotten first. Lost at the end of
the process, which gives everybody one burst.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tollgate.clock import Clock
from tollgate.errors import Overloaded

# Sums of intervals are not exact; a microsecond is no one's advantage.
_TOLERANCE_S: Final = 1e-6


class RateLimited(Overloaded):
    """Comes again after `wait_s`."""

    code = "rate_limited"

    def __init__(self, message: str, wait_s: float) -> None:
        super().__init__(message)
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` requests may come at once; after that `per_second`."""

    per_second: float
    burst: int


class RateLimit:
    def __init__(self, rate: Rate, keys_max: int) -> None:
        self._interval_s = 1 / rate.per_second
        self._ahead_s_max = (rate.burst - 1) * self._interval_s + _TOLERANCE_S
        self._keys_max = keys_max
        self._due: OrderedDict[str, float] = (
            OrderedDict()
        )  # when the next request would come if all were even

    def __len__(self) -> int:
        return len(self._due)

    def wait_s(self, key: str, now: float) -> float:
        """0, and the request counts; else how long until one will be taken, and it does not."""
        due = max(self._due.get(key, now), now)
        ahead_s = due - now
        if ahead_s > self._ahead_s_max:
            return ahead_s - self._ahead_s_max
        self._due[key] = due + self._interval_s
        self._due.move_to_end(key)
        if len(self._due) > self._keys_max:
            self._due.popitem(last=False)
        return 0.0


class KeyLimits:
    """One limit for writing and one for reading; None is no limit."""

    def __init__(
        self, post: RateLimit | None, get: RateLimit | None, clock: Clock, on_refusal: Callable[[], None]
    ) -> None:
        self._post = post
        self._get = get
        self._clock = clock
        self._on_refusal = on_refusal

    def check_post(self, merchant: str) -> None:
        """Raises RateLimited."""
        self._check(self._post, merchant)

    def check_get(self, merchant: str) -> None:
        """Raises RateLimited."""
        self._check(self._get, merchant)

    def _check(self, limit: RateLimit | None, merchant: str) -> None:
        wait_s = 0.0 if limit is None else limit.wait_s(merchant, self._clock.monotonic())
        if wait_s > 0:
            self._on_refusal()
            raise RateLimited(
                "This merchant's keys ask more often than they may. Retry with the same id.", wait_s
            )
