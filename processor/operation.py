"""What is known of an operation when it is claimed, and what is to be done next. Pure.

The rule that everything hangs on: a call without an answer, or with the answer Unknown, may have had an
effect. From then on only the very same bytes under the same key may go out, and only while the PSP certainly
still knows the key; or the PSP is asked. Past that a person decides: no step that sends exists any more.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from processor.psp.interface import PspRequest, Resolution
from tollgate.status import PENDING, PROCESSING, REQUIRES_ACTION
from tollgate.v1.payment_pb2 import Payment

# How long before the end of a PSP's key retention the last replay may go out, counted from the first send. It
# is also how far the clocks of two processors may differ: a first send may seem to be still to come.
RETENTION_MARGIN_S: Final = 3600.0
CHARGE_STEP: Final = "charge"

_EXECUTABLE: Final = frozenset({PENDING, PROCESSING, REQUIRES_ACTION})


class CallKind(enum.StrEnum):
    SEND = "send"
    LOOK_UP = "look_up"


class Answer(enum.StrEnum):
    """What a call came to, as it is stored."""

    APPROVED = "approved"
    DECLINED = "declined"
    ACTION_REQUIRED = "action_required"
    RETRYABLE = "retryable"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Call:
    """One call to the PSP; `answer` is None while, or because, it was never heard of again."""

    kind: CallKind
    answer: Answer | None


@dataclass(frozen=True, slots=True)
class StoredRequest:
    """The bytes of a step as they were stored before they were first sent."""

    step: str
    request: PspRequest
    first_sent_at_us: int


@dataclass(frozen=True, slots=True)
class Claim:
    """An operation that this worker alone may act on, until `lease_ends` (monotonic seconds)."""

    payment: Payment
    operation_id: str
    fencing_token: int
    lease_ends: float
    request: StoredRequest | None = None
    calls: tuple[Call, ...] = ()
    risk_score: int | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        return self.payment.merchant, self.payment.checkout_id, self.operation_id


@dataclass(frozen=True, slots=True)
class PspTerms:
    """What a PSP's adapter declares about an Unknown."""

    resolution: Resolution
    key_retention_s: float


@dataclass(frozen=True, slots=True)
class Execute:
    """Nothing was stored or sent yet: assess, build, store, send."""


@dataclass(frozen=True, slots=True)
class Send:
    """The stored bytes, as they are."""

    stored: StoredRequest


@dataclass(frozen=True, slots=True)
class LookUp:
    """Ask the PSP what came of the stored bytes."""

    stored: StoredRequest


@dataclass(frozen=True, slots=True)
class Expire:
    """Too late for a first send: it fails, and the PSP never hears of it."""


@dataclass(frozen=True, slots=True)
class Postpone:
    """Nothing can be done now; come again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Park:
    """Nothing can be done safely; a person decides."""

    reason: str


Step = Execute | Send | LookUp | Expire | Postpone | Park


def in_doubt(calls: Sequence[Call]) -> bool:
    """Whether an effect may stand that nobody has told us of.

    While the operation is open only a refusal without effect (Retryable) makes a send certain: any other
    answer would have ended it, unless it came too late to decide. A look-up that says "not there" (Retryable)
    settles every send before it, because look-ups are strongly consistent; an approval it does not undo.
    """
    doubt = False
    for call in calls:
        if call.answer is Answer.APPROVED:
            return True
        if call.kind is CallKind.SEND:
            doubt = doubt or call.answer is not Answer.RETRYABLE
        elif call.answer is Answer.RETRYABLE:
            doubt = False
    return doubt


def next_step(claim: Claim, terms: PspTerms | None, now_us: int) -> Step:
    """What to do with a claimed operation. `terms` is None when no adapter of that name is set up."""
    if claim.payment.status not in _EXECUTABLE:
        return Park("the payment moved on without this operation")
    if claim.request is None:
        if now_us >= claim.payment.expires_at_us:
            return Expire()
        return Execute() if terms else Postpone("no adapter is set up for this PSP")
    if terms is None:
        return Postpone("no adapter is set up for this PSP")
    if not in_doubt(claim.calls):
        return Send(claim.request)
    return _resolve(claim.request, terms, now_us)


def _resolve(stored: StoredRequest, terms: PspTerms, now_us: int) -> Step:
    match terms.resolution:
        case Resolution.LOOKUP:
            return LookUp(stored)
        case Resolution.REPLAY:
            age_s = (now_us - stored.first_sent_at_us) / 1e6
            if -RETENTION_MARGIN_S <= age_s < terms.key_retention_s - RETENTION_MARGIN_S:
                return Send(stored)
            return Park("in doubt, and too old for the PSP to know the key for certain")
        case Resolution.WEBHOOK:
            return Park("in doubt, and this PSP tells only by webhook")
