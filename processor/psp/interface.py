"""What every PSP adapter is: builds exact requests, sends them, and says what came of each.

The contract, held by tests/contract for every adapter:

1. An operation is one or more steps, named by the plan. `build` is pure; its bytes and key are stored before
   the first send, and every later send is those bytes.
2. `send` never raises for what a PSP or a network can do; it returns an outcome. It never retries by itself.
3. Only a connection that could not be made, or an answer that the PSP documents as without effect, is
   Retryable. Time-out, reset after connect, an unreadable answer and 5xx are Unknown.
4. An Unknown is resolved as the plan's terms say for the step, and only inside the PSP's own key retention.
5. A look-up that reads nothing is Unknown. Retryable it is only when the PSP's word is that nothing stands.
6. Every step but the last comes to Advanced when it is done. The last one of a payment comes to Approved, of
   every other operation to Done.
7. Awaited is for a PSP that takes an order and tells by notification what came of it. It is not sent again.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from tollgate.v1.payment_pb2 import Payment


class OperationKind(enum.StrEnum):
    PAYMENT = "payment"  # a charge, or an authorization when capture is manual
    CAPTURE = "capture"
    CANCEL = "cancel"
    REFUND = "refund"


@dataclass(frozen=True)
class Order:
    """What is asked of a PSP. `reference` is its own name for what the last step made: at first the payment's
    `psp_reference`, which is empty before its execution.
    """

    kind: OperationKind
    payment: Payment
    operation_id: str
    amount: int
    reference: str


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
class Done:
    """The capture, cancel or refund stands. `amount` is what the PSP says it moved, in minor units."""

    reference: str
    amount: int
    currency: str


@dataclass(frozen=True)
class Advanced:
    """The step is done and no money moved; the next one is built from `reference`."""

    reference: str


@dataclass(frozen=True)
class Awaited:
    """The PSP took the order; a notification tells what came of it. `reference` is the order's name there."""

    reference: str


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


Outcome = Approved | Done | Advanced | Awaited | Declined | ActionRequired | Retryable | Unknown


class Resolution(enum.Enum):
    """How an Unknown is resolved at this PSP."""

    LOOKUP = "lookup"  # a strongly consistent read by our reference
    REPLAY = "replay"  # the same bytes under the same key, only inside key_retention
    WEBHOOK = "webhook"  # only the PSP can tell


@dataclass(frozen=True, slots=True)
class PspTerms:
    """What holds for an Unknown. `replayed_s_max` ends the replays before the key does: past it the operation
    is parked for a person.
    """

    resolution: Resolution
    key_retention_s: float
    replayed_s_max: float = math.inf


@dataclass(frozen=True)
class PspPlan:
    """What an adapter declares. A step's name is for ever, as its key hangs on it, and belongs to one kind.
    A cancel is one step: it also ends what waits for its payer.
    """

    steps: Mapping[OperationKind, tuple[str, ...]]  # of every kind, in order, at least one
    terms: Mapping[str, PspTerms]  # by step
    authorization_window_s: float  # how long an authorization can be captured
    can_be_asked: bool = True  # else `ask` reads nothing: only notifications tell how a payment stands

    def replaying_for(self, replayed_s_max: float) -> PspPlan:
        """The same plan, with another bound on how long an Unknown is sent again."""
        terms = {step: replace(known, replayed_s_max=replayed_s_max) for step, known in self.terms.items()}
        return replace(self, terms=terms)

    @property
    def cancel(self) -> str:
        (step,) = self.steps[OperationKind.CANCEL]
        return step


class PspAdapter(Protocol):
    """One PSP. Stateless but for its connections."""

    name: str

    @property
    def plan(self) -> PspPlan: ...

    def build(self, order: Order, step: str, idempotency_key: str) -> PspRequest:
        """The request that does `step` of `order`."""
        ...

    async def send(self, request: PspRequest, traceparent: str) -> Outcome:
        """Sends once, bounded by the PSP time-out."""
        ...

    async def look_up(self, request: PspRequest, reference: str) -> Outcome:
        """For Resolution.LOOKUP: reads what came of `request`. Others return Unknown."""
        ...

    async def ask(self, payment: Payment) -> Outcome:
        """How the payment itself stands at the PSP now, after its execution was answered: Approved,
        ActionRequired while its payer has not come, Declined when nothing stands (any more), else Unknown.
        """
        ...

    async def close(self) -> None: ...
