"""What a PSP's report makes of the operation that it is about. Pure, on the payment's locked row.

A report is judged as an answer to a call would be, by the same decisions; what is added here is only which
operation is meant, and what to do when that operation has ended or can't have begun. Reports come late, twice
and in any order:

1. One that the payment has not got to yet waits: a capture while Tollgate knows of no authorization.
2. One that says what is known changes nothing, and neither does one that time has overtaken: an authorization
   that was voided meanwhile.
3. One that proves an effect on what has failed or was canceled, or that takes back what has succeeded, is a
   contradiction: kept for a person. No status leaves the table for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from processor.operation import Claim, TakenStep, action_deadline_us
from processor.operation_outcome import Ordered, decide_operation_outcome
from processor.outcome import (
    Decision,
    RetryPolicy,
    Timers,
    decide_abandoned,
    decide_asked,
    decide_outcome,
    next_version,
)
from processor.psp.interface import ActionRequired, Approved, Declined, Done, OperationKind, PspPlan
from processor.psp.webhook import Report
from tollgate.ids import PAYMENT_OPERATION
from tollgate.status import (
    AUTHORIZED,
    CANCELED,
    FAILED,
    NAME,
    PENDING,
    PROCESSING,
    REQUIRES_ACTION,
    StatusValue,
)
from tollgate.v1.payment_pb2 import Failure, Payment

# A payment that is still there can't have come to what a report of this kind says: what lies between is on
# its way, as an answer or as another report.
_EARLY: Final[dict[OperationKind, frozenset[StatusValue]]] = {
    OperationKind.PAYMENT: frozenset({PENDING}),
    OperationKind.CAPTURE: frozenset({PENDING, PROCESSING, REQUIRES_ACTION}),
    OperationKind.CANCEL: frozenset({PENDING, PROCESSING}),
    OperationKind.REFUND: frozenset({PENDING, PROCESSING, REQUIRES_ACTION, AUTHORIZED}),
}
_ENDED: Final = Declined("canceled", "The payment was canceled at the PSP.")
# Of reschedulings, which a report doesn't come to: the operation's own schedule stands.
_POLICY: Final = RetryPolicy()
_JITTER: Final = 1.0
_NO_CHANGE: Final = Decision()


@dataclass(frozen=True, slots=True)
class Standing:
    """An operation as it stands. `claim` is what a worker would act on, its token raised already;
    `references` are what the PSP called it in earlier reports.
    """

    claim: Claim
    status: str  # pending, succeeded, failed
    references: frozenset[str] = frozenset()

    def is_called(self, reference: str) -> bool:
        steps = self.claim.steps
        return reference in self.references or any(step.reference == reference for step in steps)


@dataclass(frozen=True, slots=True)
class Apply:
    """The decision about that operation, to be written as an answer's."""

    claim: Claim
    decision: Decision


@dataclass(frozen=True, slots=True)
class Known:
    """Nothing changes."""

    operation_id: str = ""


@dataclass(frozen=True, slots=True)
class Early:
    """Come again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Contradiction:
    """An anomaly of this kind; nothing else changes."""

    kind: str
    operation_id: str = ""


Verdict = Apply | Known | Early | Contradiction


def decide_report(
    payment: Payment, operations: Sequence[Standing], report: Report, plan: PspPlan, now_us: int
) -> Verdict:
    """`operations` are all of the payment's. `report.subject.operation_id` is filled in where a request's key
    named it.
    """
    if payment.status in _EARLY[report.kind]:
        return Early(f"a report about a {report.kind}, and the payment is {NAME[payment.status]}")
    found = find_operation(operations, report)
    if found is None and report.kind is OperationKind.CANCEL:
        found = _named(operations, PAYMENT_OPERATION)  # nobody asked: it is the payment itself that ended
    if found is None:
        return _of_nobody(payment, report)
    if found.status != "pending":
        return _after_the_end(payment, found, report)
    decision = _decide(payment, found.claim, report, plan, now_us)
    if _changes_something(decision):
        return Apply(found.claim, decision)
    return Known(found.claim.operation_id)


def find_operation(operations: Sequence[Standing], report: Report) -> Standing | None:
    """The one that is named, unless that is but the payment which an operation is of; else the only one that
    it can be.
    """
    if report.subject.operation_id:
        named = _named(operations, report.subject.operation_id)
        if named is None or named.claim.kind is report.kind:
            return named
    if report.kind is OperationKind.PAYMENT:
        return _named(operations, PAYMENT_OPERATION)
    sent = [one for one in operations if one.claim.kind is report.kind and one.claim.steps]
    reference = getattr(report.outcome, "reference", "")
    for one in sent:
        if reference and one.is_called(reference):
            return one
    standing = [one for one in sent if one.status != "failed"]
    if report.kind is OperationKind.REFUND:  # one that has succeeded has another reference: it is another
        amount = report.outcome.amount if isinstance(report.outcome, Done) else None
        standing = [one for one in standing if one.status == "pending" and one.claim.amount == amount]
    return standing[0] if len(standing) == 1 else None


def _decide(payment: Payment, claim: Claim, report: Report, plan: PspPlan, now_us: int) -> Decision:
    if claim.risk_score is not None and not payment.HasField("risk_score"):
        payment.risk_score = claim.risk_score
    outcome = report.outcome
    if claim.kind is not OperationKind.PAYMENT:
        ordered = Ordered(claim.operation_id, claim.kind, claim.amount)
        return decide_operation_outcome(payment, ordered, (), outcome, now_us, _POLICY, _JITTER)
    timers = _timers(claim, plan, now_us)
    if report.kind is OperationKind.CANCEL:
        if isinstance(outcome, Done) and payment.status == AUTHORIZED:
            return decide_asked(payment, (), _ENDED, now_us, _POLICY, _JITTER, timers)
        if claim.steps and claim.steps[-1].name == plan.cancel:  # its payer didn't come, and we told the PSP
            return decide_abandoned(payment, (), outcome, now_us, _POLICY, _JITTER)
        return _canceled_unasked(payment, now_us) if isinstance(outcome, Done) else _NO_CHANGE
    decide = decide_asked if payment.status in (REQUIRES_ACTION, AUTHORIZED) else decide_outcome
    return decide(payment, (), outcome, now_us, _POLICY, _JITTER, timers)


def _canceled_unasked(payment: Payment, now_us: int) -> Decision:
    """Before it was heard of as authorized, if it ever was: nothing is held either way."""
    following = next_version(payment, CANCELED, now_us)
    following.failure.CopyFrom(Failure(code=_ENDED.code, message=_ENDED.message))
    following.ClearField("next_action")
    return Decision(payment=following, settled=False, failure=(_ENDED.code, _ENDED.message))


def _changes_something(decision: Decision) -> bool:
    """Or wants the operation to be taken up at once."""
    changes = decision.payment is not None or decision.settled is not None or decision.anomaly is not None
    return changes or decision.claim_after_s == 0.0


def _timers(claim: Claim, plan: PspPlan, now_us: int) -> Timers:
    began: TakenStep | None = claim.steps[0] if claim.steps else None
    deadline_us = action_deadline_us(began) if began else now_us
    return Timers(deadline_us, plan.authorization_window_s)


def _after_the_end(payment: Payment, ended: Standing, report: Report) -> Verdict:
    claim = ended.claim
    match report.outcome:
        case Approved() as approved if ended.status == "succeeded":
            same = (approved.amount, approved.currency) == (payment.amount, payment.currency)
            return Known(claim.operation_id) if same else _contradiction("approved_amount_differs", ended)
        case Approved() as approved:
            if _was_voided(payment, approved):
                return Known(claim.operation_id)
            return _contradiction(f"approved_while_{NAME[payment.status]}", ended)
        case Done() if report.kind is OperationKind.CANCEL:
            if payment.status in (CANCELED, FAILED):
                return Known(claim.operation_id)
            return _contradiction(f"canceled_while_{NAME[payment.status]}", ended)
        case Done() as done if ended.status == "succeeded":
            same = (done.amount, done.currency) == (claim.amount, payment.currency)
            return (
                Known(claim.operation_id) if same else _contradiction(f"{claim.kind}_amount_differs", ended)
            )
        case Done():
            return _contradiction(f"{claim.kind}_done_after_it_failed", ended)
        case Declined() if ended.status == "succeeded":
            return _contradiction(f"{claim.kind}_declined_after_it_succeeded", ended)
        case Declined() | ActionRequired():
            return Known(claim.operation_id)


def _was_voided(payment: Payment, approved: Approved) -> bool:
    """An authorization that the PSP itself said has ended since: nothing is held any more."""
    ended = payment.status == CANCELED or payment.failure.code == "action_expired"
    return ended and not approved.captured and approved.reference == payment.psp_reference


def _of_nobody(payment: Payment, report: Report) -> Verdict:
    if not isinstance(report.outcome, Done):
        return Known()
    if report.kind is OperationKind.CAPTURE and report.outcome.amount == payment.captured_amount:
        return Known()  # of a payment that is captured as it is made
    return Contradiction(f"{report.kind}_by_somebody_else")


def _named(operations: Sequence[Standing], operation_id: str) -> Standing | None:
    return next((one for one in operations if one.claim.operation_id == operation_id), None)


def _contradiction(kind: str, about: Standing) -> Contradiction:
    return Contradiction(kind, about.claim.operation_id)
