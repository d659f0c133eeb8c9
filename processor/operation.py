"""What is known of an operation when it is claimed, and what is to be done next. Pure.

The rule that everything hangs on: a call without an answer, or with the answer Unknown, may have had an
effect. From then on only the very same bytes under the same key may go out, and only while the PSP certainly
still knows the key; or the PSP is asked. Past that a person decides: no step that sends exists any more.

Doubt belongs to a step: the next one begins only when the PSP has told that the one before is done.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from processor.psp.interface import OperationKind, PspPlan, PspRequest, PspTerms, Resolution
from tollgate.status import (
    AUTHORIZED,
    NAME,
    PARTIALLY_REFUNDED,
    PENDING,
    PROCESSING,
    REQUIRES_ACTION,
    SUCCEEDED,
    StatusValue,
)
from tollgate.v1.payment_pb2 import OperationStatus, Payment

# How long before the end of a PSP's key retention the last replay may go out, counted from the first send. It
# is also how far the clocks of two processors may differ: a first send may seem to be still to come.
RETENTION_MARGIN_S: Final = 3600.0
ACTION_WINDOW_S: Final = 3600.0  # how long a payer has, from the first send
# How long a PSP may take to tell what came of an order that it took; then a person asks it.
AWAITED_S: Final = 3 * 24 * 3600.0
_OPEN_AGAIN_S: Final = 3600.0  # an authorization whose end an open operation stands before
_POSTPONED_S: Final = 10.0
_WAIT_MIN_S: Final = 0.25
_WAIT_MAX_S: Final = 60.0

_EXECUTABLE: Final = frozenset({PENDING, PROCESSING})
# Where an operation may first be sent, and where it waits for the payment's own execution to end.
_FIRST_SENT_FROM: Final[dict[OperationKind, frozenset[StatusValue]]] = {
    OperationKind.CAPTURE: frozenset({AUTHORIZED}),
    OperationKind.CANCEL: frozenset({REQUIRES_ACTION, AUTHORIZED}),
    OperationKind.REFUND: frozenset({SUCCEEDED, PARTIALLY_REFUNDED}),
}


class CallKind(enum.StrEnum):
    SEND = "send"
    LOOK_UP = "look_up"
    ASK = "ask"


class Answer(enum.StrEnum):
    """What a call came to, as it is stored."""

    APPROVED = "approved"  # Done as well
    ADVANCED = "advanced"
    AWAITED = "awaited"
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
class TakenStep:
    """The bytes of a step as they were stored before they were first sent, and every call about them.
    `reference` is what the PSP last named in an answer to it.
    """

    name: str
    request: PspRequest
    first_sent_at_us: int
    calls: tuple[Call, ...] = ()
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """An operation that this worker alone may act on, until `lease_ends` (monotonic seconds)."""

    payment: Payment
    operation_id: str
    fencing_token: int
    lease_ends: float
    kind: OperationKind
    amount: int
    created_at_us: int
    steps: tuple[TakenStep, ...] = ()  # in order
    risk_score: int | None = None
    is_as_stored: bool = True  # else the payment holds a token in place of a name that its row has

    @property
    def key(self) -> tuple[str, str, str]:
        return self.payment.merchant, self.payment.checkout_id, self.operation_id


@dataclass(frozen=True, slots=True)
class Execute:
    """Nothing of `step` was stored or sent yet: build, store, send. A payment's first one is assessed."""

    step: str


@dataclass(frozen=True, slots=True)
class Send:
    """The stored bytes, as they are."""

    taken: TakenStep


@dataclass(frozen=True, slots=True)
class LookUp:
    """Ask the PSP what came of the stored bytes."""

    taken: TakenStep


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the PSP how the payment stands; kept beside the calls of `taken`."""

    taken: TakenStep


@dataclass(frozen=True, slots=True)
class Expire:
    """Too late for a first send: it fails, and the PSP never hears of it."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """The payment moved to where this can't be done. Nothing was sent: it fails."""

    message: str


@dataclass(frozen=True, slots=True)
class Postpone:
    """Nothing can be done now; come again."""

    reason: str
    after_s: float = _POSTPONED_S


@dataclass(frozen=True, slots=True)
class Park:
    """Nothing can be done safely; a person decides."""

    reason: str


Step = Execute | Send | LookUp | Ask | Expire | Refuse | Postpone | Park


def in_doubt(calls: Sequence[Call]) -> bool:
    """Whether an effect of a step may stand that nobody has told us of.

    While the step is open only a refusal without effect (Retryable) makes a send certain: any other answer
    would have ended it, unless it came too late to decide. A look-up that says "not there" (Retryable)
    settles every send before it, because look-ups are strongly consistent; an approval it does not undo.
    """
    doubt = False
    for call in calls:
        if call.answer is Answer.APPROVED:
            return True
        if call.kind is CallKind.SEND:
            doubt = doubt or call.answer is not Answer.RETRYABLE
        elif call.kind is CallKind.LOOK_UP and call.answer is Answer.RETRYABLE:
            doubt = False
    return doubt


def next_step(claim: Claim, plan: PspPlan | None, now_us: int) -> Step:
    """What to do with a claimed operation. `plan` is None when no adapter of that name is set up."""
    taken = claim.steps[-1] if claim.steps else None
    if claim.kind is OperationKind.PAYMENT:
        if claim.payment.status not in _EXECUTABLE:
            return _after_execution(claim, plan, now_us)
        if taken is None and now_us >= claim.payment.expires_at_us:
            return Expire()
    elif taken is None and claim.payment.status not in _FIRST_SENT_FROM[claim.kind]:
        return _not_now(claim, now_us)
    if plan is None:
        return Postpone("no adapter is set up for this PSP")
    steps = plan.steps[claim.kind]
    if taken is None:
        return Execute(steps[0])
    if taken.calls and taken.calls[-1].answer is Answer.ADVANCED:
        return _following(steps, taken.name)
    return _again(taken, plan, now_us)


def action_deadline_us(taken: TakenStep) -> int:
    """When a payment stops waiting for its payer."""
    return taken.first_sent_at_us + round(ACTION_WINDOW_S * 1e6)


def _not_now(claim: Claim, now_us: int) -> Step:
    """A cancel waits for the payment's execution, the longer the more rarely looked at."""
    if claim.kind is OperationKind.CANCEL and claim.payment.status in _EXECUTABLE:
        waited_s = (now_us - claim.created_at_us) / 1e6
        wait_s = min(max(waited_s / 2, _WAIT_MIN_S), _WAIT_MAX_S)
        return Postpone("it waits for the payment's own execution", wait_s)
    return Refuse(f"The payment is {NAME[claim.payment.status]} now: no {claim.kind} is possible.")


def _after_execution(claim: Claim, plan: PspPlan | None, now_us: int) -> Step:
    """The payment's own operation was due while the payment waits: for its payer, or for its capture."""
    status = claim.payment.status
    if status not in (REQUIRES_ACTION, AUTHORIZED) or not claim.steps:
        return Park("the payment moved on without this operation")
    if plan is None:
        return Postpone("no adapter is set up for this PSP")
    taken = claim.steps[-1]
    last = taken.calls[-1] if taken.calls else None
    if taken.name == plan.cancel:
        abandoned = last is not None and (last.kind is CallKind.ASK or last.answer is Answer.DECLINED)
        if abandoned and not plan.can_be_asked:
            return Park("the PSP neither executes nor ends the payment")
        return Ask(taken) if abandoned else _again(taken, plan, now_us)
    if not plan.can_be_asked:
        return _end_unasked(claim.payment, taken, plan, now_us)
    is_late = now_us >= action_deadline_us(taken)
    if status == REQUIRES_ACTION and is_late and last == Call(CallKind.ASK, Answer.ACTION_REQUIRED):
        return Execute(plan.cancel)
    return Ask(taken)


def _end_unasked(payment: Payment, taken: TakenStep, plan: PspPlan, now_us: int) -> Step:
    """What came of the payment would have been told. It is ended, which fails where it was executed; an
    operation that is open ends an authorization itself.
    """
    ends_at_us = action_deadline_us(taken)
    if payment.status == AUTHORIZED:
        ends_at_us = taken.first_sent_at_us + round(plan.authorization_window_s * 1e6)
    if now_us < ends_at_us:
        return Postpone("its time is not over", (ends_at_us - now_us) / 1e6)
    pending = OperationStatus.OPERATION_STATUS_PENDING
    if any(operation.status == pending for operation in payment.operations):
        return Postpone("an operation of the payment is open", _OPEN_AGAIN_S)
    return Execute(plan.cancel)


def _following(steps: Sequence[str], done: str) -> Step:
    position = steps.index(done) + 1 if done in steps else len(steps)
    if position == len(steps):
        return Park(f"the PSP's adapter names no step after {done}")
    return Execute(steps[position])


def _again(taken: TakenStep, plan: PspPlan, now_us: int) -> Step:
    if taken.name not in plan.terms:
        return Park(f"the PSP's adapter knows no step {taken.name}")
    terms = plan.terms[taken.name]
    is_awaited = bool(taken.calls) and taken.calls[-1].answer is Answer.AWAITED
    if is_awaited and terms.resolution is not Resolution.LOOKUP and _is_overdue(taken, now_us):
        return Park("the PSP took it and has not told what came of it")
    return _resolve(taken, terms, now_us) if in_doubt(taken.calls) else Send(taken)


def _is_overdue(taken: TakenStep, now_us: int) -> bool:
    """Before that it is looked at only when its answer came too late to be heard: it is asked for again."""
    return now_us - taken.first_sent_at_us >= AWAITED_S * 1e6


def _resolve(taken: TakenStep, terms: PspTerms, now_us: int) -> Step:
    match terms.resolution:
        case Resolution.LOOKUP:
            return LookUp(taken)
        case Resolution.REPLAY:
            age_s = (now_us - taken.first_sent_at_us) / 1e6
            if age_s >= terms.replayed_s_max:
                return Park(
                    "in doubt, and the same bytes have been answered with nothing certain for too long"
                )
            if -RETENTION_MARGIN_S <= age_s < terms.key_retention_s - RETENTION_MARGIN_S:
                return Send(taken)
            return Park("in doubt, and too old for the PSP to know the key for certain")
        case Resolution.WEBHOOK:
            return Park("in doubt, and this PSP tells only by webhook")
