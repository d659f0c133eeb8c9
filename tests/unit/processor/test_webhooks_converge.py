"""A PSP's reports shuffled, doubled, delayed and early: a payment always ends as it stands at the PSP, and
nobody is alarmed.

The PSP lives through a payment as it is asked to; every fact is reported once at least, in any order, and
again whenever it likes. Tollgate hears nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

from hypothesis import given, seed, settings
from hypothesis import strategies as st

from processor.operation import Claim, TakenStep
from processor.operation_request import Accepted, Wanted, decide_requested
from processor.operation_request import Standing as Asked
from processor.outcome import Decision, begin
from processor.psp.interface import (
    ActionRequired,
    Approved,
    Declined,
    Done,
    OperationKind,
    PspPlan,
    PspRequest,
    PspTerms,
    Resolution,
)
from processor.psp.webhook import Report, Subject
from processor.webhook_outcome import Apply, Contradiction, Early, Standing, decide_report
from tests.fixtures.changes import NOW_US, accepted_payment
from tollgate.ids import PAYMENT_OPERATION
from tollgate.status import (
    AUTHORIZED,
    CANCELED,
    FAILED,
    NAME,
    PARTIALLY_REFUNDED,
    REFUNDED,
    REQUIRES_ACTION,
    SUCCEEDED,
    TERMINAL,
    is_legal,
)
from tollgate.v1.payment_pb2 import Capture, Payment

AMOUNT = 1234
STEPS = {kind: (kind.value,) for kind in OperationKind}
PLAN = PspPlan(STEPS, {kind.value: PspTerms(Resolution.REPLAY, 86_400.0) for kind in OperationKind}, 86_400.0)
SENT = (TakenStep("step", PspRequest("POST", "/", "key", b"{}"), NOW_US),)
PAYMENT = Subject(payment_key="acme/checkout-0001")


@dataclass
class Tollgate:
    """What Postgres holds, driven by reports alone."""

    capture: Capture.ValueType
    payment: Payment = field(init=False)
    operations: dict[str, Standing] = field(default_factory=dict)
    waiting: list[Report] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        accepted = accepted_payment(amount=AMOUNT, capture=self.capture)
        accepted.version = 1
        begun = begin(accepted, NOW_US)
        assert begun is not None
        self.payment = begun
        self._note(PAYMENT_OPERATION, OperationKind.PAYMENT, AMOUNT)

    def _note(self, operation_id: str, kind: OperationKind, amount: int) -> None:
        claim = Claim(self.payment, operation_id, 1, 0.0, kind, amount, NOW_US, SENT)
        self.operations[operation_id] = Standing(claim, "pending")

    def ask_for(self, kind: OperationKind, amount: int | None) -> str:
        """The id of the operation, which is certain to be taken."""
        number = len(self.operations)
        standing = [
            Asked(one.claim.kind, one.claim.amount, one.status == "pending")
            for one in self.operations.values()
            if one.claim.kind is not OperationKind.PAYMENT and one.status != "failed"
        ]
        wanted = Wanted(kind, amount, "", f"key-{number}")
        answer = decide_requested(self.payment, standing, wanted, f"op_{number}", NOW_US)
        assert isinstance(answer, Accepted), answer
        self._advance(answer.payment)
        self._note(answer.operation.id, kind, answer.operation.amount)
        return answer.operation.id

    def hear(self, report: Report) -> None:
        verdict = decide_report(self.payment, list(self.operations.values()), report, PLAN, NOW_US)
        match verdict:
            case Apply(claim, decision):
                self._conclude(claim.operation_id, decision)
                called = frozenset({getattr(report.outcome, "reference", "")})
                one = self.operations[claim.operation_id]
                self.operations[claim.operation_id] = replace(one, references=one.references | called)
            case Early():
                self.waiting.append(report)
            case Contradiction(kind):
                self.alarms.append(kind)

    def look_again(self) -> None:
        waiting, self.waiting = self.waiting, []
        for report in waiting:
            self.hear(report)

    def _conclude(self, operation_id: str, decision: Decision) -> None:
        if decision.anomaly:
            self.alarms.append(decision.anomaly)
        if decision.settled is not None:
            self._settle(operation_id, decision.settled)
        if decision.settles_payment is not None:
            self._settle(PAYMENT_OPERATION, decision.settles_payment)
        if decision.payment is not None:
            self._advance(decision.payment)

    def _settle(self, operation_id: str, succeeded: bool) -> None:
        one = self.operations[operation_id]
        assert one.status == "pending"
        self.operations[operation_id] = replace(one, status="succeeded" if succeeded else "failed")

    def _advance(self, following: Payment) -> None:
        assert following.version == self.payment.version + 1
        assert following.status == self.payment.status or is_legal(self.payment.status, following.status)
        assert self.payment.status not in TERMINAL or following.status == self.payment.status
        self.payment = following


class Psp:
    """Lives through one payment; every fact it makes is a report, which names its operation, the payment's
    own in its place as Adyen may, or none.
    """

    def __init__(self, tollgate: Tollgate, random: Random, naming: str) -> None:
        self.tollgate = tollgate
        self.random = random
        self.naming = naming
        self.facts: list[Report] = []
        self.unheard: list[Report] = []
        self.expected: tuple[int, int, int] = (0, 0, 0)

    def tell(self, kind: OperationKind, outcome: object, operation_id: str = "") -> None:
        named = {"operation": operation_id, "payment": PAYMENT_OPERATION, "": ""}[self.naming]
        subject = replace(PAYMENT, operation_id=named)
        report = Report(subject, kind, outcome)  # type: ignore[arg-type]
        self.facts.append(report)
        self.unheard.append(report)

    def deliver(self, until_all: bool) -> None:
        """Some of what is unheard, in any order, with old facts between; all of it if told so."""
        while self.unheard and (until_all or self.random.random() < 0.6):
            again = self.random.choice(self.facts)
            if self.random.random() < 0.4:
                self.tollgate.hear(again)
            self.random.shuffle(self.unheard)
            self.tollgate.hear(self.unheard.pop())
            if self.random.random() < 0.3:
                self.tollgate.look_again()
        if until_all:
            for report in self.random.sample(self.facts, len(self.facts)):
                self.tollgate.hear(report)
            for _ in self.facts:
                self.tollgate.look_again()

    def live(self) -> None:
        captured = self.tollgate.capture == Capture.CAPTURE_AUTOMATIC
        if self.random.random() < 0.5:
            self.tell(OperationKind.PAYMENT, ActionRequired("ch_1", "https://psp.example/3ds"))
            self.deliver(until_all=False)
        if self.random.random() < 0.25:
            self.tell(OperationKind.PAYMENT, Declined("no", "No.", "ch_1"))
            self.expected = (FAILED, 0, 0)
            return
        self.tell(OperationKind.PAYMENT, Approved("ch_1", AMOUNT, "USD", captured))
        if captured:
            self.expected = (SUCCEEDED, AMOUNT, 0)
            self.refund()
        elif self.random.random() < 0.3:
            self.tell(OperationKind.CANCEL, Done("ch_1", AMOUNT, "USD"))  # its window is over
            self.expected = (CANCELED, 0, 0)
        else:
            self.end_authorization()

    def end_authorization(self) -> None:
        self.deliver(until_all=True)  # a client asks for what Tollgate knows alone
        assert self.tollgate.payment.status == AUTHORIZED
        if self.random.random() < 0.4:
            operation_id = self.tollgate.ask_for(OperationKind.CANCEL, None)
            self.tell(OperationKind.CANCEL, Done("cn_1", AMOUNT, "USD"), operation_id)
            self.expected = (CANCELED, 0, 0)
            return
        amount = self.random.choice([1, 1000, AMOUNT])
        operation_id = self.tollgate.ask_for(OperationKind.CAPTURE, amount)
        self.tell(OperationKind.CAPTURE, Done("cp_1", amount, "USD"), operation_id)
        self.expected = (SUCCEEDED, amount, 0)
        self.refund()

    def refund(self) -> None:
        if self.random.random() < 0.4:
            return
        self.deliver(until_all=True)
        captured = self.expected[1]
        refunded = asked = 0
        for number in range(self.random.randint(1, 3)):
            amount = self.random.randint(1, 500)
            if asked + amount > captured:  # one that was declined counts until that is heard
                break
            asked += amount
            operation_id = self.tollgate.ask_for(OperationKind.REFUND, amount)
            claims = [one.claim for one in self.tollgate.operations.values()]
            alike = sum(one.amount == amount and one.kind is OperationKind.REFUND for one in claims)
            succeeds = self.random.random() < 0.8
            if not succeeds or alike > 1:  # only its name tells it from another
                self.naming = "operation"
            if succeeds:
                self.tell(OperationKind.REFUND, Done(f"re_{number}", amount, "USD"), operation_id)
                refunded += amount
            else:
                self.tell(OperationKind.REFUND, Declined("no", "No."), operation_id)
            self.deliver(until_all=False)
        if refunded:
            status = REFUNDED if refunded == captured else PARTIALLY_REFUNDED
            self.expected = (status, captured, refunded)


@seed(20261121)
@settings(max_examples=1000, database=None)
@given(
    choices=st.integers(0, 2**64),
    capture=st.sampled_from([Capture.CAPTURE_AUTOMATIC, Capture.CAPTURE_MANUAL]),
    naming=st.sampled_from(["operation", "payment", ""]),
)
def test_reports_in_any_order_come_to_what_stands_at_the_psp(
    choices: int, capture: Capture.ValueType, naming: str
) -> None:
    tollgate = Tollgate(capture)
    psp = Psp(tollgate, Random(choices), naming)
    psp.live()
    psp.deliver(until_all=True)
    payment = tollgate.payment
    status, captured, refunded = psp.expected
    assert NAME[payment.status] == NAME[status]  # type: ignore[index]
    assert (payment.captured_amount, payment.refunded_amount) == (captured, refunded)
    assert tollgate.alarms == []
    assert tollgate.waiting == []
    assert "pending" not in {one.status for one in tollgate.operations.values()}
    assert payment.status != REQUIRES_ACTION
