"""A PSP that takes an order and tells later: nothing is sent twice, and nobody waits for ever."""

from __future__ import annotations

from dataclasses import replace

import pytest

from processor.operation import (
    AWAITED_S,
    Answer,
    Call,
    CallKind,
    Claim,
    Execute,
    Park,
    Postpone,
    Send,
    Step,
    TakenStep,
    in_doubt,
    next_step,
)
from processor.operation_outcome import Ordered, decide_operation_outcome
from processor.outcome import RetryPolicy, Timers, decide_abandoned, decide_outcome
from processor.psp.interface import (
    Awaited,
    Done,
    OperationKind,
    PspPlan,
    PspRequest,
    PspTerms,
    Resolution,
)
from tests.fixtures.changes import NOW_US, accepted_payment
from tollgate.status import AUTHORIZED, CANCELED, FAILED, PROCESSING, REQUIRES_ACTION, StatusValue
from tollgate.v1.payment_pb2 import Operation, OperationStatus

HOUR_US = 3_600_000_000
WINDOW_S = 28 * 86_400.0
POLICY = RetryPolicy()
TIMERS = Timers(NOW_US + HOUR_US, WINDOW_S)
STEPS = {kind: (kind.value,) for kind in OperationKind}
PLAN = PspPlan(
    STEPS,
    {kind.value: PspTerms(Resolution.REPLAY, 31 * 86_400.0) for kind in OperationKind},
    WINDOW_S,
    can_be_asked=False,
)
SENT = TakenStep("payment", PspRequest("POST", "/payments", "key", b"{}"), NOW_US)
CANCELING = replace(SENT, name="cancel")


def waiting(status: StatusValue, *steps: TakenStep, open_operation: bool = False) -> Claim:
    payment = accepted_payment()
    payment.status, payment.version = status, 3
    if open_operation:
        payment.operations.append(Operation(id="op_1", status=OperationStatus.OPERATION_STATUS_PENDING))
    kind = OperationKind.PAYMENT
    return Claim(payment, "payment", 2, 15.0, kind, payment.amount, NOW_US, steps or (SENT,))


def heard(taken: TakenStep, *answers: Answer | None) -> TakenStep:
    return replace(taken, calls=tuple(Call(CallKind.SEND, answer) for answer in answers))


def after(claim: Claim, seconds: float) -> Step:
    return next_step(claim, PLAN, NOW_US + round(seconds * 1e6))


def test_what_a_psp_took_is_in_doubt_and_never_sent_again() -> None:
    taken = heard(SENT, Answer.AWAITED)
    assert in_doubt(taken.calls)
    assert isinstance(after(waiting(PROCESSING, taken), AWAITED_S), Park)
    assert isinstance(after(waiting(PROCESSING, heard(SENT, None, Answer.AWAITED)), AWAITED_S), Park)


def test_an_order_whose_taking_was_heard_too_late_is_asked_for_again_with_the_same_bytes() -> None:
    taken = heard(SENT, Answer.AWAITED)
    assert after(waiting(PROCESSING, taken), 20.0) == Send(taken)


def test_nobody_looks_at_it_before_its_time() -> None:
    payment = waiting(PROCESSING).payment
    calls = heard(SENT, Answer.AWAITED).calls
    own = decide_outcome(payment, calls, Awaited("R1"), NOW_US, POLICY, 0.5, TIMERS)
    assert (own.claim_after_s, own.payment, own.settled) == (AWAITED_S, None, None)
    ordered = Ordered("op_1", OperationKind.REFUND, 100)
    decision = decide_operation_outcome(payment, ordered, calls, Awaited("R1"), NOW_US, POLICY, 0.5)
    assert (decision.claim_after_s, decision.payment, decision.settled) == (AWAITED_S, None, None)


def test_a_payer_who_did_not_come_is_waited_for_an_hour_and_then_ended() -> None:
    claim = waiting(REQUIRES_ACTION)
    assert after(claim, 3000.0) == Postpone("its time is not over", 600.0)
    assert after(claim, 3600.0) == Execute("cancel")


def test_an_authorization_past_its_window_is_ended_unless_an_operation_does_that() -> None:
    assert isinstance(after(waiting(AUTHORIZED), WINDOW_S - 1), Postpone)
    assert after(waiting(AUTHORIZED), WINDOW_S) == Execute("cancel")
    later = after(waiting(AUTHORIZED, open_operation=True), WINDOW_S)
    assert later == Postpone("an operation of the payment is open", 3600.0)


@pytest.mark.parametrize("answer", [Answer.AWAITED, Answer.DECLINED])
def test_what_could_not_be_ended_is_a_persons(answer: Answer) -> None:
    claim = waiting(REQUIRES_ACTION, SENT, heard(CANCELING, answer))
    assert isinstance(after(claim, AWAITED_S), Park)


@pytest.mark.parametrize(
    ("status", "ends_as", "code"),
    [(REQUIRES_ACTION, FAILED, "action_expired"), (AUTHORIZED, CANCELED, "authorization_expired")],
)
def test_the_end_of_what_waited_is_told_for_what_it_was(
    status: StatusValue, ends_as: StatusValue, code: str
) -> None:
    payment = waiting(status).payment
    calls = heard(CANCELING, Answer.AWAITED).calls
    awaited = decide_abandoned(payment, calls, Awaited("R2"), NOW_US, POLICY, 0.5)
    assert (awaited.claim_after_s, awaited.payment) == (AWAITED_S, None)
    ended = decide_abandoned(payment, calls, Done("R2", payment.amount, "USD"), NOW_US, POLICY, 0.5)
    assert ended.payment is not None
    assert (ended.payment.status, ended.failure[0], ended.settled) == (ends_as, code, False)
