"""Which merchant asks, and whether he may now: of every route but the two hot ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.health import Health
from gateway.http.message import Headers
from gateway.merchants import Account
from gateway.rate_limits import KeyLimits


@dataclass(frozen=True, slots=True)
class Access:
    """Both raise Problem, NotReady and RateLimited. Without `limits` nobody asks too often."""

    authenticate: Callable[[Headers], Account]
    health: Health
    limits: KeyLimits | None

    def writer(self, headers: Headers) -> str:
        """The merchant who asks for something to be done."""
        self.health.check_readable()
        merchant = self.authenticate(headers).merchant
        if self.limits is not None:
            self.limits.check_post(merchant)
        return merchant

    def reader(self, headers: Headers) -> str:
        """The merchant who asks how something stands."""
        self.health.check_readable()
        merchant = self.authenticate(headers).merchant
        if self.limits is not None:
            self.limits.check_get(merchant)
        return merchant
