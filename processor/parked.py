"""A person's word on an operation that was parked: what it makes of the payment. Pure; nothing is ever sent.

The word stands in for the PSP's answer and goes the way of one: the same rules, the same status table. What
they don't allow is refused, and the operation stays parked.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from processor.operation_outcome import Ordered, decide_operation_outcome
from processor.outcome import ASKED_AGAIN_S, Decision, RetryPolicy, Timers, decide_asked, decide_outcome
from processor.psp.interface import Approved, Declined, Done, OperationKind
from tollgate.errors import RejectedInput
from tollgate.status import AUTHORIZED
from tollgate.v1.payment_pb2 import Capture, Payment

NOT_EXECUTED: Final = ("not_executed", "The PSP has not executed it.")
_POLICY: Final = RetryPolicy()


class Verdict(enum.StrEnum):
    """What a person has found at the PSP."""

    EXECUTED = "executed"  # the effect stands, over the amount that was asked for
    NOT_EXECUTED = "not_executed"  # nothing stands


@dataclass(frozen=True, slots=True)
class Word:
    """`psp_reference` is the PSP's name for the effect; empty when it is known already. `reason` and
    `decided_by` are for the record.
    """

    verdict: Verdict
    psp_reference: str
    reason: str
    decided_by: str


def decide_resolved(payment: Payment, ordered: Ordered, word: Word, now_us: int) -> Decision:
    """Raises RejectedInput when the word contradicts how the payment stands."""
    decision = _decide(payment, ordered, word, now_us)
    if decision.anomaly or decision.parked_reason:
        raise RejectedInput(
            f"Operation {ordered.id} can't be called {word.verdict} now ({decision.anomaly}). Nothing was "
            "changed; look at the payment again."
        )
    return decision


def _decide(payment: Payment, ordered: Ordered, word: Word, now_us: int) -> Decision:
    """An authorization that stands is asked about within the hour: its window is the PSP's to tell."""
    timers = Timers(action_deadline_us=now_us, authorization_window_s=ASKED_AGAIN_S)
    rest = (), _outcome(payment, ordered, word), now_us, _POLICY, 0.0
    if ordered.kind is not OperationKind.PAYMENT:
        return decide_operation_outcome(payment, ordered, *rest)
    if payment.status == AUTHORIZED:
        return decide_asked(payment, *rest, timers)
    return decide_outcome(payment, *rest, timers)


def _outcome(payment: Payment, ordered: Ordered, word: Word) -> Approved | Declined | Done:
    reference = word.psp_reference or payment.psp_reference
    if word.verdict is Verdict.NOT_EXECUTED:
        return Declined(*NOT_EXECUTED, reference=reference)
    if ordered.kind is not OperationKind.PAYMENT:
        return Done(reference, ordered.amount, payment.currency)
    if not reference:
        raise RejectedInput("A payment that was executed has a name at the PSP: give --psp-reference.")
    captured = payment.capture == Capture.CAPTURE_AUTOMATIC
    return Approved(reference, payment.amount, payment.currency, captured)
