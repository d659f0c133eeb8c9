"""Which rule judges an answer: the payment's own execution, a question about it, its end, or an operation.

What comes out is a conclusion whose decision runs later, on the payment's locked row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from processor.operation import Answer, Call, CallKind, Claim, TakenStep, action_deadline_us
from processor.operation_outcome import Ordered, decide_operation_outcome, fail_operation
from processor.outcome import (
    ANSWER_OF,
    Decision,
    RetryPolicy,
    Timers,
    decide_abandoned,
    decide_asked,
    decide_outcome,
)
from processor.psp.interface import OperationKind, Outcome, PspPlan
from processor.storage.attempts import NewAttempt
from processor.storage.operations import Answered, Conclusion
from tollgate.clock import Clock
from tollgate.v1.payment_pb2 import Payment


@dataclass(frozen=True, slots=True)
class Judge:
    """`plan_of` is only asked for PSPs that were called."""

    policy: RetryPolicy
    clock: Clock
    random: Callable[[], float]
    plan_of: Callable[[str], PspPlan]

    def answered(self, attempt: NewAttempt, outcome: Outcome, answered: Answered) -> Conclusion:
        claim, now_us, jitter = attempt.claim, self.clock.now_us(), self.random()
        plan = self.plan_of(attempt.psp)
        earlier = _calls_of(claim, attempt.step)
        calls = (*earlier, Call(attempt.kind, ANSWER_OF[type(outcome)]))
        began = claim.steps[0] if claim.steps else TakenStep(attempt.step, attempt.request, now_us)
        timers = Timers(action_deadline_us(began), plan.authorization_window_s)
        ends = claim.kind is OperationKind.PAYMENT and attempt.step == plan.cancel

        def decide(payment: Payment) -> Decision:
            if claim.risk_score is not None:
                payment.risk_score = claim.risk_score
            if claim.kind is not OperationKind.PAYMENT:
                ordered = Ordered(claim.operation_id, claim.kind, claim.amount)
                return decide_operation_outcome(payment, ordered, calls, outcome, now_us, self.policy, jitter)
            if attempt.kind is CallKind.ASK:
                return decide_asked(
                    payment,
                    calls,
                    outcome,
                    now_us,
                    self.policy,
                    jitter,
                    timers,
                    abandoned=ends and Call(CallKind.SEND, Answer.DECLINED) in earlier,
                )
            if ends:
                return decide_abandoned(payment, calls, outcome, now_us, self.policy, jitter)
            return decide_outcome(payment, calls, outcome, now_us, self.policy, jitter, timers)

        return Conclusion(claim, decide, answered)

    def refused(self, claim: Claim, message: str) -> Conclusion:
        """Nothing was sent: the payment moved to where the operation can't be done."""
        ordered = Ordered(claim.operation_id, claim.kind, claim.amount)
        now_us = self.clock.now_us()
        return Conclusion(
            claim, lambda payment: fail_operation(payment, ordered, ("invalid_transition", message), now_us)
        )


def _calls_of(claim: Claim, step: str) -> tuple[Call, ...]:
    return claim.steps[-1].calls if claim.steps and claim.steps[-1].name == step else ()
