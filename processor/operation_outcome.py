"""What a PSP's answer makes of a capture, a cancel or a refund. Pure, on the payment's locked row.

A failed operation leaves amounts and status as they were and raises the version. A cancel voids or fails; it
never refunds. An effect of another amount, or on a payment that moved to where it can't be, is an anomaly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from processor.operation import AWAITED_S, Call
from processor.outcome import (
    PSP_UNAVAILABLE,
    Decision,
    RetryPolicy,
    anomalous,
    next_version,
    resolve_delay_s,
    retry_delay_s,
)
from processor.psp.interface import Advanced, Awaited, Declined, Done, OperationKind, Outcome, Retryable
from tollgate.status import (
    CANCELED,
    NAME,
    PARTIALLY_REFUNDED,
    REFUNDED,
    SUCCEEDED,
    StatusValue,
    is_legal,
)
from tollgate.v1.payment_pb2 import Failure, OperationStatus, Payment

CANCELED_FAILURE: Final = ("canceled", "The payment was canceled.")


@dataclass(frozen=True, slots=True)
class Ordered:
    """The operation that was answered."""

    id: str
    kind: OperationKind
    amount: int


def decide_operation_outcome(
    payment: Payment,
    ordered: Ordered,
    calls: Sequence[Call],
    outcome: Outcome,
    now_us: int,
    policy: RetryPolicy,
    jitter: float,
) -> Decision:
    """`calls` are all of the step, the answered one last; `jitter` is random in [0, 1)."""
    match outcome:
        case Done():
            return _done(payment, ordered, outcome, now_us)
        case Advanced():
            return Decision(claim_after_s=0.0)
        case Awaited():
            return Decision(claim_after_s=AWAITED_S)
        case Declined():
            return fail_operation(payment, ordered, (outcome.code, outcome.message), now_us)
        case Retryable():
            delay_s = retry_delay_s(calls, outcome, policy, jitter)
            if delay_s is None:
                return fail_operation(payment, ordered, ("psp_unavailable", PSP_UNAVAILABLE), now_us)
            return Decision(claim_after_s=delay_s)
        case _:  # an answer that no operation has is no answer
            return Decision(claim_after_s=resolve_delay_s(calls, policy, jitter))


def fail_operation(payment: Payment, ordered: Ordered, failure: tuple[str, str], now_us: int) -> Decision:
    following = next_version(payment, payment.status, now_us)
    _settle_shown(following, ordered.id, Failure(code=failure[0], message=failure[1]))
    event = f"tollgate.{ordered.kind}.failed"
    return Decision(payment=following, settled=False, failure=failure, event=event)


def _done(payment: Payment, ordered: Ordered, done: Done, now_us: int) -> Decision:
    if ordered.kind is OperationKind.CANCEL:
        return _voided(payment, ordered, now_us)
    if (done.amount, done.currency) != (ordered.amount, payment.currency):
        return anomalous(f"{ordered.kind}_amount_differs")
    if ordered.kind is OperationKind.CAPTURE:
        return _moved(payment, ordered, SUCCEEDED, now_us, captured=ordered.amount)
    refunded = payment.refunded_amount + ordered.amount
    if refunded > payment.captured_amount:
        return anomalous("refunded_more_than_captured")
    target = REFUNDED if refunded == payment.captured_amount else PARTIALLY_REFUNDED
    return _moved(payment, ordered, target, now_us, refunded=refunded)


def _voided(payment: Payment, ordered: Ordered, now_us: int) -> Decision:
    if payment.status != CANCELED:  # else the PSP was asked meanwhile, and said that nothing stands
        return _moved(payment, ordered, CANCELED, now_us)
    following = next_version(payment, CANCELED, now_us)
    _settle_shown(following, ordered.id)
    return Decision(payment=following, settled=True)


def _moved(
    payment: Payment,
    ordered: Ordered,
    target: StatusValue,
    now_us: int,
    captured: int | None = None,
    refunded: int | None = None,
) -> Decision:
    if not is_legal(payment.status, target):
        return anomalous(f"{ordered.kind}_done_while_{NAME[payment.status]}")
    following = next_version(payment, target, now_us)
    following.ClearField("next_action")
    if captured is not None:
        following.captured_amount = captured
    if refunded is not None:
        following.refunded_amount = refunded
    _settle_shown(following, ordered.id)
    if ordered.kind is OperationKind.REFUND:
        return Decision(payment=following, settled=True, event="tollgate.refund.succeeded")
    ends_as = ordered.kind is OperationKind.CAPTURE
    return Decision(payment=following, settled=True, settles_payment=ends_as)


def _settle_shown(payment: Payment, operation_id: str, failure: Failure | None = None) -> None:
    """In the snapshot too, if it is among those that are shown."""
    for operation in payment.operations:
        if operation.id == operation_id:
            succeeded, failed = (
                OperationStatus.OPERATION_STATUS_SUCCEEDED,
                OperationStatus.OPERATION_STATUS_FAILED,
            )
            operation.status = succeeded if failure is None else failed
            if failure is not None:
                operation.failure.CopyFrom(failure)
