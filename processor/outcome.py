"""What a PSP's answer makes of a payment and its operation. Pure: the row, the calls so far, the answer,
the time.

`decide_outcome` runs on the payment's row as it is at the commit, locked. It returns the payment's next
version whole, or None when the payment stays as it is. It never leaves the status table, never believes an
approval of another amount, and calls a payment failed for want of an answer only when no call can have had
an effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from processor.operation import Answer, Call, CallKind, in_doubt
from processor.psp.interface import ActionRequired, Approved, Declined, Outcome, Retryable, Unknown
from tollgate.status import (
    AUTHORIZED,
    FAILED,
    NAME,
    PENDING,
    PROCESSING,
    REQUIRES_ACTION,
    SUCCEEDED,
    StatusValue,
    is_legal,
)
from tollgate.v1.payment_pb2 import Capture, Failure, NextAction, Payment

ANSWER_OF: Final[dict[type, Answer]] = {
    Approved: Answer.APPROVED,
    Declined: Answer.DECLINED,
    ActionRequired: Answer.ACTION_REQUIRED,
    Retryable: Answer.RETRYABLE,
    Unknown: Answer.UNKNOWN,
}


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter, capped. `sends_max` counts first sends and retries alike."""

    sends_max: int = 50  # about 3.5 minutes of a PSP that is down
    retry_first_s: float = 0.1
    resolve_first_s: float = 2.0  # an Unknown is first asked about within this
    delay_max_s: float = 10.0
    retry_after_max_s: float = 60.0  # a PSP's own wish is heard up to here


@dataclass(frozen=True, slots=True)
class Decision:
    """What is written, in one transaction.

    `settled` ends the operation: True succeeded, False failed. Otherwise it stays pending: claimable again
    after `claim_after_s`, or not by itself when that is None (parked, or awaiting the payer).
    """

    payment: Payment | None = None
    settled: bool | None = None
    failure: tuple[str, str] = ("", "")
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
) -> Decision:
    """`calls` are all of the operation, the answered one last; `jitter` is random in [0, 1)."""
    match outcome:
        case Approved():
            return _approved(payment, outcome, now_us)
        case Declined():
            return _fail(payment, outcome.code, outcome.message, now_us, outcome.reference)
        case ActionRequired():
            return _action_required(payment, outcome, now_us)
        case Retryable():
            return _retryable(payment, calls, outcome, now_us, policy, jitter)
        case Unknown():
            return Decision(claim_after_s=_resolve_delay(calls, policy, jitter))


def decide_expired(payment: Payment, now_us: int) -> Decision:
    """No first send before `expires_at`."""
    return _fail(payment, "expired", "The payment was not sent to the PSP in time.", now_us)


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


def _approved(payment: Payment, approved: Approved, now_us: int) -> Decision:
    automatic = payment.capture == Capture.CAPTURE_AUTOMATIC
    if (approved.amount, approved.currency) != (payment.amount, payment.currency):
        return _anomaly("approved_amount_differs")
    if approved.captured != automatic:
        return _anomaly("approved_capture_differs")
    target = SUCCEEDED if automatic else AUTHORIZED
    if not is_legal(payment.status, target):
        return _anomaly(f"approved_while_{NAME[payment.status]}")
    following = next_version(payment, target, now_us)
    following.psp_reference = approved.reference
    following.captured_amount = payment.amount if automatic else 0
    following.ClearField("next_action")
    return Decision(payment=following, settled=True)


def _anomaly(kind: str) -> Decision:
    return Decision(parked_reason=f"anomaly: {kind}", anomaly=kind)


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


def _action_required(payment: Payment, action: ActionRequired, now_us: int) -> Decision:
    if not is_legal(payment.status, REQUIRES_ACTION):
        return Decision()  # known already: the payer has the address
    following = next_version(payment, REQUIRES_ACTION, now_us)
    following.psp_reference = action.reference
    following.next_action.CopyFrom(NextAction(type="redirect", url=action.url))
    return Decision(payment=following)


def _retryable(
    payment: Payment,
    calls: Sequence[Call],
    retryable: Retryable,
    now_us: int,
    policy: RetryPolicy,
    jitter: float,
) -> Decision:
    wished_s = min(retryable.retry_after_s or 0.0, policy.retry_after_max_s)
    if in_doubt(calls):  # this call had no effect; an earlier one may have
        return Decision(claim_after_s=max(_resolve_delay(calls, policy, jitter), wished_s))
    if _sends(calls) >= policy.sends_max:
        return _fail(payment, "psp_unavailable", "The PSP could not be reached in time.", now_us)
    delay_s = _backoff_s(policy.retry_first_s, _sends(calls), policy, jitter)
    return Decision(claim_after_s=max(delay_s, wished_s))


def _resolve_delay(calls: Sequence[Call], policy: RetryPolicy, jitter: float) -> float:
    unheard = sum(1 for call in calls if call.answer in (None, Answer.UNKNOWN))
    return _backoff_s(policy.resolve_first_s, unheard, policy, jitter)


def _backoff_s(first_s: float, count: int, policy: RetryPolicy, jitter: float) -> float:
    """Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/"""
    exponent = min(max(count, 1) - 1, 30)  # beyond the cap anyway
    return jitter * float(min(policy.delay_max_s, first_s * 2**exponent))


def _sends(calls: Sequence[Call]) -> int:
    return sum(1 for call in calls if call.kind is CallKind.SEND)
