"""What a PSP's answer makes of a payment's own execution. Pure: the row, the calls, the answer, the time.

`decide_outcome` runs on the payment's row as it is at the commit, locked. It returns the payment's next
version whole, or None when the payment stays as it is. It never leaves the status table, never believes an
approval of another amount, and calls a payment failed for want of an answer only when no call can have had
an effect. `decide_asked` is the same for a payment that waits, for its payer or for its capture, and of
which the PSP was asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from processor.operation import AWAITED_S, Answer, Call, CallKind, in_doubt
from processor.psp.interface import (
    ActionRequired,
    Advanced,
    Approved,
    Awaited,
    Declined,
    Done,
    Outcome,
    Retryable,
    Unknown,
)
from tollgate.status import (
    AUTHORIZED,
    CANCELED,
    FAILED,
    NAME,
    PENDING,
    PROCESSING,
    REQUIRES_ACTION,
    SUCCEEDED,
    StatusValue,
    is_legal,
)
from tollgate.v1.payment_pb2 import Capture, Failure, NextAction, OperationStatus, Payment

ANSWER_OF: Final[dict[type, Answer]] = {
    Approved: Answer.APPROVED,
    Done: Answer.APPROVED,
    Advanced: Answer.ADVANCED,
    Awaited: Answer.AWAITED,
    Declined: Answer.DECLINED,
    ActionRequired: Answer.ACTION_REQUIRED,
    Retryable: Answer.RETRYABLE,
    Unknown: Answer.UNKNOWN,
}


PSP_UNAVAILABLE: Final = "The PSP could not be reached in time."
ASKED_AGAIN_S: Final = 3600.0  # an authorization that outlives its window
_NOTHING_HEARD: Final = (None, Answer.UNKNOWN)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter, capped. `sends_max` counts first sends and retries alike."""

    sends_max: int = 50  # about 3.5 minutes of a PSP that is down
    retry_first_s: float = 0.1
    resolve_first_s: float = 2.0  # an Unknown is first asked about within this
    delay_max_s: float = 10.0
    retry_after_max_s: float = 60.0  # a PSP's own wish is heard up to here


@dataclass(frozen=True, slots=True)
class Timers:
    """Until when a payment waits for its payer, and how long an authorization stands."""

    action_deadline_us: int
    authorization_window_s: float


@dataclass(frozen=True, slots=True)
class Decision:
    """What is written, in one transaction.

    `settled` ends the operation: True succeeded, False failed. Otherwise it stays pending: claimable again
    after `claim_after_s`, or not by itself when that is None (parked). `settles_payment` ends the payment's
    own operation too, which sleeps while the payment waits. `event` names the version, if not after the
    payment's status.
    """

    payment: Payment | None = None
    settled: bool | None = None
    failure: tuple[str, str] = ("", "")
    settles_payment: bool | None = None
    event: str | None = None
    claim_after_s: float | None = None
    parked_reason: str | None = None
    anomaly: str | None = None


def decide_outcome(
    payment: Payment,
    calls: Sequence[Call],
    outcome: Outcome,
    now_us: int,
    policy: RetryPolicy,
    jitter: float,
    timers: Timers,
) -> Decision:
    """`calls` are all of the step, the answered one last; `jitter` is random in [0, 1)."""
    match outcome:
        case Approved():
            return _approved(payment, outcome, now_us, timers)
        case Advanced():
            return Decision(claim_after_s=0.0)
        case Awaited():
            return Decision(claim_after_s=AWAITED_S)
        case Declined():
            return _fail(payment, outcome.code, outcome.message, now_us, outcome.reference)
        case ActionRequired():
            return _action_required(payment, outcome, now_us, timers)
        case Retryable():
            delay_s = retry_delay_s(calls, outcome, policy, jitter)
            if delay_s is None:
                return _fail(payment, "psp_unavailable", PSP_UNAVAILABLE, now_us)
            return Decision(claim_after_s=delay_s)
        case Unknown():
            return Decision(claim_after_s=resolve_delay_s(calls, policy, jitter))
        case Done():
            return anomalous("an_execution_was_answered_as_an_operation")


def decide_asked(
    payment: Payment,
    calls: Sequence[Call],
    outcome: Outcome,
    now_us: int,
    policy: RetryPolicy,
    jitter: float,
    timers: Timers,
    *,
    abandoned: bool = False,
) -> Decision:
    """`outcome` is how the payment stands at the PSP. `abandoned`: the PSP refused to end it before."""
    if payment.status == AUTHORIZED:
        return _asked_of_authorization(payment, calls, outcome, now_us, policy, jitter)
    match outcome:
        case Approved():
            return _approved(payment, outcome, now_us, timers)
        case Declined():
            return _fail(payment, outcome.code, outcome.message, now_us, outcome.reference)
        case ActionRequired() if abandoned:
            return Decision(parked_reason="the PSP neither executes nor ends the payment")
        case ActionRequired():
            return Decision(claim_after_s=_until(timers.action_deadline_us, now_us))
        case _:
            return Decision(claim_after_s=resolve_delay_s(calls, policy, jitter))


def decide_abandoned(
    payment: Payment, calls: Sequence[Call], outcome: Outcome, now_us: int, policy: RetryPolicy, jitter: float
) -> Decision:
    """The PSP was told to end a payment whose payer didn't come. If it refuses, it is asked why."""
    match outcome:
        case Done() if payment.status == AUTHORIZED:
            return _authorization_expired(payment, now_us)
        case Done():
            return _fail(payment, "action_expired", "The payer did not complete the payment in time.", now_us)
        case Awaited():
            return Decision(claim_after_s=AWAITED_S)
        case Declined():
            return Decision(claim_after_s=0.0)
        case _:
            return Decision(claim_after_s=resolve_delay_s(calls, policy, jitter))


def decide_expired(payment: Payment, now_us: int) -> Decision:
    """No first send before `expires_at`."""
    return _fail(payment, "expired", "The payment was not sent to the PSP in time.", now_us)


def decide_missing(payment: Payment, code: str, message: str, now_us: int) -> Decision:
    """It names what the merchant doesn't keep here; the PSP never hears of it."""
    return _fail(payment, code, message, now_us)


def decide_risk_declined(payment: Payment, score: int, now_us: int) -> Decision:
    """Refused before the PSP heard of it."""
    return _fail(payment, "risk_declined", "The payment was refused by the risk rules.", now_us, score=score)


def next_version(payment: Payment, status: StatusValue, now_us: int) -> Payment:
    """A copy, one version on. `updated_at` never goes back, whatever the clocks do."""
    following = Payment()
    following.CopyFrom(payment)
    following.status = status
    following.version = payment.version + 1
    following.updated_at_us = max(now_us, payment.updated_at_us)
    return following


def begin(payment: Payment, now_us: int) -> Payment | None:
    """The claimed payment's next version: processing. None when it is past that already."""
    return next_version(payment, PROCESSING, now_us) if payment.status == PENDING else None


def retry_delay_s(
    calls: Sequence[Call], retryable: Retryable, policy: RetryPolicy, jitter: float
) -> float | None:
    """None: the sends are used up, and none of them can have had an effect."""
    wished_s = min(retryable.retry_after_s or 0.0, policy.retry_after_max_s)
    if in_doubt(calls):  # this call had no effect; an earlier one may have
        return max(resolve_delay_s(calls, policy, jitter), wished_s)
    if _sends(calls) >= policy.sends_max:
        return None
    return max(_backoff_s(policy.retry_first_s, _sends(calls), policy, jitter), wished_s)


def resolve_delay_s(calls: Sequence[Call], policy: RetryPolicy, jitter: float) -> float:
    """When an Unknown is asked about again."""
    unheard = sum(1 for call in calls if call.answer in _NOTHING_HEARD)
    return _backoff_s(policy.resolve_first_s, unheard, policy, jitter)


def anomalous(kind: str) -> Decision:
    """The PSP's word contradicts what is known: a person decides."""
    return Decision(parked_reason=f"anomaly: {kind}", anomaly=kind)


def _approved(payment: Payment, approved: Approved, now_us: int, timers: Timers) -> Decision:
    automatic = payment.capture == Capture.CAPTURE_AUTOMATIC
    if (approved.amount, approved.currency) != (payment.amount, payment.currency):
        return anomalous("approved_amount_differs")
    if approved.captured != automatic:
        return anomalous("approved_capture_differs")
    target = SUCCEEDED if automatic else AUTHORIZED
    if not is_legal(payment.status, target):
        return anomalous(f"approved_while_{NAME[payment.status]}")
    following = next_version(payment, target, now_us)
    following.psp_reference = approved.reference
    following.captured_amount = payment.amount if automatic else 0
    following.ClearField("next_action")
    if automatic:
        return Decision(payment=following, settled=True)
    return Decision(payment=following, claim_after_s=timers.authorization_window_s)


def _asked_of_authorization(
    payment: Payment,
    calls: Sequence[Call],
    outcome: Outcome,
    now_us: int,
    policy: RetryPolicy,
    jitter: float,
) -> Decision:
    """Its window is over: only the PSP knows whether it still stands."""
    match outcome:
        case Declined():
            return _authorization_expired(payment, now_us)
        case Approved() if not outcome.captured or _has_open_operation(payment):
            return Decision(claim_after_s=ASKED_AGAIN_S)
        case Approved():
            return anomalous("captured_by_somebody_else")
        case _:
            return Decision(claim_after_s=resolve_delay_s(calls, policy, jitter))


def _authorization_expired(payment: Payment, now_us: int) -> Decision:
    following = next_version(payment, CANCELED, now_us)
    failure = ("authorization_expired", "The authorization ended at the PSP before it was captured.")
    following.failure.CopyFrom(Failure(code=failure[0], message=failure[1]))
    return Decision(payment=following, settled=False, failure=failure)


def _has_open_operation(payment: Payment) -> bool:
    pending = OperationStatus.OPERATION_STATUS_PENDING
    return any(operation.status == pending for operation in payment.operations)


def _fail(
    payment: Payment, code: str, message: str, now_us: int, reference: str = "", score: int | None = None
) -> Decision:
    failure = (code, message)
    if not is_legal(payment.status, FAILED):
        return Decision(settled=False, failure=failure)
    following = next_version(payment, FAILED, now_us)
    following.failure.CopyFrom(Failure(code=code, message=message))
    following.ClearField("next_action")
    if reference:
        following.psp_reference = reference
    if score is not None:
        following.risk_score = score
    return Decision(payment=following, settled=False, failure=failure)


def _action_required(payment: Payment, action: ActionRequired, now_us: int, timers: Timers) -> Decision:
    wait_s = _until(timers.action_deadline_us, now_us)
    if not is_legal(payment.status, REQUIRES_ACTION):
        return Decision(claim_after_s=wait_s)  # known already: the payer has the address
    following = next_version(payment, REQUIRES_ACTION, now_us)
    following.psp_reference = action.reference
    following.next_action.CopyFrom(NextAction(type="redirect", url=action.url))
    return Decision(payment=following, claim_after_s=wait_s)


def _until(at_us: int, now_us: int) -> float:
    return max(0.0, (at_us - now_us) / 1e6)


def _backoff_s(first_s: float, count: int, policy: RetryPolicy, jitter: float) -> float:
    """Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/"""
    exponent = min(max(count, 1) - 1, 30)  # beyond the cap anyway
    return jitter * float(min(policy.delay_max_s, first_s * 2**exponent))


def _sends(calls: Sequence[Call]) -> int:
    return sum(1 for call in calls if call.kind is CallKind.SEND)
