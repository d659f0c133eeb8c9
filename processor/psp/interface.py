"""What every PSP adapter is: builds an exact request, sends it, and says what came of it.

The contract, held by tests/contract for every adapter:

1. `build` is pure. Its bytes and key are stored before the first send, and every later send is those bytes.
2. `send` never raises for what a PSP or a network can do; it returns an outcome. It never retries by itself.
3. Only a connection that could not be made, or an answer that the PSP documents as without effect, is
   Retryable. Time-out, reset after connect, an unreadable answer and 5xx are Unknown.
4. An Unknown is resolved as the adapter declares, and only inside the PSP's own key retention.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol

from tollgate.v1.payment_pb2 import Payment


@dataclass(frozen=True)
class PspRequest:
    """Exactly what goes out, as it is stored. `body` is sent byte for byte, under `idempotency_key`."""

    method: str
    path: str
    idempotency_key: str
    body: bytes


@dataclass(frozen=True)
class Approved:
    """The effect stands. `amount` is what the PSP says it charged or authorized, in minor units."""

    reference: str
    amount: int
    currency: str
    captured: bool


@dataclass(frozen=True)
class Declined:
    """The PSP refused, finally and without effect."""

    code: str
    message: str
    reference: str = ""


@dataclass(frozen=True)
class ActionRequired:
    """The payer must visit `url`; no effect yet."""

    reference: str
    url: str


@dataclass(frozen=True)
class Retryable:
    """Certainly without effect; the same bytes may be sent again after `retry_after_s`."""

    reason: str
    retry_after_s: float | None = None


@dataclass(frozen=True)
class Unknown:
    """It may or may not have had an effect. Never sent anew; only resolved."""

    reason: str
    reference: str = ""


Outcome = Approved | Declined | ActionRequired | Retryable | Unknown


class Resolution(enum.Enum):
    """How an Unknown is resolved at this PSP."""

    LOOKUP = "lookup"  # a strongly consistent read by our reference
    REPLAY = "replay"  # the same bytes under the same key, only inside key_retention
    WEBHOOK = "webhook"  # only the PSP can tell


class PspAdapter(Protocol):
    """One PSP. Stateless but for its connections."""

    name: str
    resolution: Resolution
    key_retention_s: float

    def build_charge(self, payment: Payment, idempotency_key: str) -> PspRequest:
        """The request that executes `payment` (charge, or authorization when capture is manual)."""
        ...

    async def send(self, request: PspRequest, traceparent: str) -> Outcome:
        """Sends once, bounded by the PSP time-out."""
        ...

    async def look_up(self, request: PspRequest, reference: str) -> Outcome:
        """For Resolution.LOOKUP: reads what came of `request`. Others return Unknown."""
        ...

    async def close(self) -> None: ...
