"""Captures, cancels and refunds in any order, with any answers in any order: what holds whatever happens.

The machine is one payment with the pure deciding functions around it, as the Ledger and the committer run
them, and a PSP that keeps its own books.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from processor.operation import (
    Answer,
    Call,
    CallKind,
    Claim,
    Execute,
    Postpone,
    Refuse,
    Send,
    TakenStep,
    next_step,
)
from processor.operation_outcome import Ordered, decide_operation_outcome, fail_operation
from processor.operation_request import (
    Accepted,
    RefusalCode,
    Refused,
    Standing,
    Wanted,
    decide_changed,
    decide_requested,
)
from processor.outcome import ANSWER_OF, Decision, RetryPolicy, Timers, begin, decide_outcome
from processor.psp.interface import (
    Approved,
    Declined,
    Done,
    OperationKind,
    Outcome,
    PspPlan,
    PspRequest,
    PspTerms,
    Resolution,
    Retryable,
    Unknown,
)
from tests.fixtures.changes import NOW_US, accepted_payment
from tollgate.status import CANCELED, PARTIALLY_REFUNDED, PENDING, PROCESSING, REFUNDED, TERMINAL, is_legal
from tollgate.v1.payment_pb2 import Capture, OperationStatus, Payment

POLICY = RetryPolicy(sends_max=3)
TIMERS = Timers(NOW_US + 3_600_000_000, 86_400.0)
STEPS = {kind: (kind.value,) for kind in OperationKind}
PLAN = PspPlan(STEPS, {kind.value: PspTerms(Resolution.REPLAY, 86_400.0) for kind in OperationKind}, 86_400.0)
REQUEST = PspRequest("POST", "/", "key", b"{}")


@dataclass
class Asked:
    """An accepted operation and what was heard of it. `effect`: what it really did at the PSP."""

    id: str
    kind: OperationKind
    amount: int
    status: str = "pending"
    calls: list[Call] = field(default_factory=list)
    effect: bool | None = None

    def claim(self, payment: Payment) -> Claim:
        steps = (TakenStep(self.kind.value, REQUEST, NOW_US, tuple(self.calls)),) if self.calls else ()
        return Claim(payment, self.id, 1, 15.0, self.kind, self.amount, NOW_US, steps)


class OnePayment(RuleBasedStateMachine):
    operations = Bundle("operations")

    @initialize(capture=st.sampled_from([Capture.CAPTURE_AUTOMATIC, Capture.CAPTURE_MANUAL]))
    def accept(self, capture: Capture.ValueType) -> None:
        self.payment = accepted_payment(capture=capture)
        self.payment.version = 1
        self.all: list[Asked] = []
        self.held = self.captured = self.refunded = 0  # the PSP's own books
        self.open = True

    def advance(self, following: Payment) -> None:
        before = self.payment
        assert following.version == before.version + 1
        assert following.status == before.status or is_legal(before.status, following.status)
        assert before.status not in TERMINAL or following.status == before.status
        self.payment = following

    @precondition(lambda self: self.payment.status == PENDING)
    @rule()
    def claim(self) -> None:
        begun = begin(self.payment, NOW_US)
        assert begun is not None
        self.advance(begun)

    @precondition(lambda self: self.payment.status == PROCESSING)
    @rule(approves=st.booleans())
    def execute(self, approves: bool) -> None:
        automatic = self.payment.capture == Capture.CAPTURE_AUTOMATIC
        outcome: Outcome = Declined("no", "No.")
        if approves:
            outcome = Approved("ch_1", self.payment.amount, self.payment.currency, captured=automatic)
            self.held = 0 if automatic else self.payment.amount
            self.captured = self.payment.amount if automatic else 0
        calls = [Call(CallKind.SEND, ANSWER_OF[type(outcome)])]
        decision = decide_outcome(self.payment, calls, outcome, NOW_US, POLICY, 0.0, TIMERS)
        assert decision.payment is not None
        self.advance(decision.payment)

    @rule(
        target=operations,
        kind=st.sampled_from([OperationKind.CAPTURE, OperationKind.CANCEL, OperationKind.REFUND]),
        amount=st.none() | st.integers(1, 1300),
    )
    def ask_for(self, kind: OperationKind, amount: int | None) -> object:
        number = len(self.all) + 1
        wanted = Wanted(kind, None if kind is OperationKind.CANCEL else amount, "", f"key-{number}")
        standing = [
            Standing(item.kind, item.amount, item.status == "pending")
            for item in self.all
            if item.status != "failed"
        ]
        answer = decide_requested(self.payment, standing, wanted, f"op_{number}", NOW_US)
        if isinstance(answer, Refused):
            assert answer.code in (RefusalCode.INVALID_TRANSITION, RefusalCode.AMOUNT_TOO_LARGE)
            return multiple()
        assert isinstance(answer, Accepted)
        self.advance(answer.payment)
        asked = Asked(answer.operation.id, kind, answer.operation.amount)
        asked.status = "succeeded" if answer.is_settled else "pending"
        self.all.append(asked)
        return multiple() if answer.is_settled else asked

    @rule(
        asked=consumes(operations),
        target=operations,
        heard=st.sampled_from(["answer", "lose", "drop", "refuse"]),
        willing=st.booleans(),
    )
    def work_on(self, asked: Asked, heard: str, willing: bool) -> object:
        match next_step(asked.claim(self.payment), PLAN, NOW_US):
            case Postpone():
                assert self.payment.status in (PENDING, PROCESSING)
                return asked
            case Refuse(message):
                assert not asked.calls
                failure = ("invalid_transition", message)
                self.conclude(asked, fail_operation(self.payment, self.ordered(asked), failure, NOW_US))
                return multiple()
            case Execute() | Send():
                return self.send(asked, heard, willing)
            case other:
                raise AssertionError(f"unexpected: {other}")

    def send(self, asked: Asked, heard: str, willing: bool) -> object:
        if heard in ("answer", "lose") and asked.effect is None:
            asked.effect = willing and self.move(asked)
        outcome: Outcome
        match heard:
            case "answer" if asked.effect:
                outcome = Done("re_1", asked.amount, self.payment.currency)
            case "answer":
                outcome = Declined("no", "No.")
            case "refuse":
                outcome = Retryable("429")
            case _:
                outcome = Unknown("no answer")
        asked.calls.append(Call(CallKind.SEND, ANSWER_OF[type(outcome)]))
        decision = decide_operation_outcome(
            self.payment, self.ordered(asked), asked.calls, outcome, NOW_US, POLICY, 0.0
        )
        assert decision.anomaly is None
        if decision.settled is None:
            assert decision.payment is None
            assert decision.claim_after_s is not None
            return asked
        self.conclude(asked, decision)
        assert (asked.status == "succeeded") == bool(asked.effect)
        return multiple()

    def move(self, asked: Asked) -> bool:
        """The PSP moves what it has, once."""
        match asked.kind:
            case OperationKind.CAPTURE if self.held >= asked.amount:
                self.held, self.captured = 0, asked.amount
            case OperationKind.CANCEL if self.held:
                self.held = 0
            case OperationKind.REFUND if self.refunded + asked.amount <= self.captured:
                self.refunded += asked.amount
            case _:
                return False
        return True

    def ordered(self, asked: Asked) -> Ordered:
        return Ordered(asked.id, asked.kind, asked.amount)

    def conclude(self, asked: Asked, decision: Decision) -> None:
        before = self.payment
        assert decision.payment is not None
        self.advance(decision.payment)
        asked.status = "succeeded" if decision.settled else "failed"
        if not decision.settled:
            assert decision.failure[0]
            assert decision.failure[1]
            assert self.money(before) == self.money(self.payment)

    @staticmethod
    def money(payment: Payment) -> tuple[int, int, int]:
        return payment.status, payment.captured_amount, payment.refunded_amount

    @rule(seen=st.integers(0, 30))
    def change(self, seen: int) -> None:
        answer = decide_changed(self.payment, seen, "Tea", None, NOW_US)
        if isinstance(answer, Payment):
            assert seen == self.payment.version
            self.advance(answer)

    @invariant()
    def no_more_is_captured_than_authorized_nor_refunded_than_captured(self) -> None:
        if not hasattr(self, "payment"):
            return
        payment = self.payment
        assert 0 <= payment.refunded_amount <= payment.captured_amount <= payment.amount
        whole = payment.captured_amount and payment.refunded_amount == payment.captured_amount
        assert (payment.status == REFUNDED) == bool(whole)
        assert (payment.status == PARTIALLY_REFUNDED) == (bool(payment.refunded_amount) and not whole)
        under_way = [item for item in self.all if item.status == "pending"]
        refunds = sum(item.amount for item in under_way if item.kind is OperationKind.REFUND)
        assert payment.refunded_amount + refunds <= payment.captured_amount
        assert sum(item.kind is not OperationKind.REFUND for item in under_way) <= 1

    @invariant()
    def what_is_said_to_have_moved_has_moved(self) -> None:
        if not hasattr(self, "payment"):
            return
        if not any(item.status == "pending" for item in self.all):
            assert self.payment.captured_amount == self.captured
            assert self.payment.refunded_amount == self.refunded
            if self.payment.status == CANCELED:
                assert (self.held, self.captured) == (0, 0)

    @invariant()
    def the_snapshot_shows_the_last_operations_as_they_are(self) -> None:
        if not hasattr(self, "payment"):
            return
        shown = [
            (operation.id, OperationStatus.Name(operation.status).removeprefix("OPERATION_STATUS_").lower())
            for operation in self.payment.operations
        ]
        assert shown == [(item.id, item.status) for item in self.all[-10:]]


TestOnePayment = OnePayment.TestCase
TestOnePayment.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_an_answer_without_a_question_is_heard_as_nothing() -> None:
    """A PSP that answers a refund as if it were a charge has told nothing about the refund."""
    payment = accepted_payment()
    payment.version, payment.status = 3, PROCESSING
    ordered = Ordered("op_1", OperationKind.REFUND, 100)
    approved = Approved("ch_1", 100, "USD", captured=True)
    calls = [Call(CallKind.SEND, Answer.APPROVED)]
    decision = decide_operation_outcome(payment, ordered, calls, approved, NOW_US, POLICY, 0.5)
    assert (decision.payment, decision.settled) == (None, None)
    assert decision.claim_after_s is not None
