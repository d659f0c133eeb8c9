"""Which operation a report is about, and what becomes of one that contradicts what is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from processor.operation import Claim, TakenStep
from processor.psp.interface import (
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
from processor.webhook_outcome import (
    Apply,
    Contradiction,
    Early,
    Known,
    Standing,
    Verdict,
    decide_report,
    find_operation,
)
from tests.fixtures.changes import NOW_US, accepted_payment
from tollgate.ids import PAYMENT_OPERATION
from tollgate.status import (
    AUTHORIZED,
    CANCELED,
    FAILED,
    PENDING,
    PROCESSING,
    REFUNDED,
    REQUIRES_ACTION,
    SUCCEEDED,
    StatusValue,
)
from tollgate.v1.payment_pb2 import Capture, Failure, Payment

PAYMENT, CAPTURE, CANCEL, REFUND = OperationKind
STEPS = {kind: (kind.value,) for kind in OperationKind}
PLAN = PspPlan(STEPS, {kind.value: PspTerms(Resolution.REPLAY, 86_400.0) for kind in OperationKind}, 86_400.0)
REQUEST = PspRequest("POST", "/", "key", b"{}")
APPROVED = Approved("ch_1", 1234, "USD", captured=True)


def payment_that_is(status: StatusValue, **fields: object) -> Payment:
    payment = accepted_payment(
        capture=Capture.CAPTURE_MANUAL if status == AUTHORIZED else Capture.CAPTURE_AUTOMATIC
    )
    payment.version = 3
    payment.status = status
    payment.psp_reference = "ch_1"
    if status in (SUCCEEDED, REFUNDED):
        payment.captured_amount = 1234
    for name, value in fields.items():
        setattr(payment, name, value)
    return payment


def operation(
    kind: OperationKind,
    status: str = "pending",
    *,
    named: str = "op_1",
    amount: int = 1234,
    step: str | None = None,
    reference: str = "",
) -> Standing:
    name = PAYMENT_OPERATION if kind is PAYMENT else named
    taken = TakenStep(step or kind.value, REQUEST, NOW_US, (), reference)
    claim = Claim(accepted_payment(), name, 2, 0.0, kind, amount, NOW_US, (taken,))
    return Standing(claim, status)


def report(kind: OperationKind, outcome: object, operation_id: str = "") -> Report:
    subject = Subject(payment_key="acme/checkout-0001", operation_id=operation_id)
    return Report(subject, kind, outcome)  # type: ignore[arg-type]


def decided(payment: Payment, told: Report, *operations: Standing) -> Verdict:
    return decide_report(payment, operations, told, PLAN, NOW_US)


def test_a_refund_is_found_by_its_name_its_reference_or_its_amount() -> None:
    first = operation(REFUND, named="op_1", amount=100, reference="re_1")
    second = operation(REFUND, named="op_2", amount=100)
    third = operation(REFUND, named="op_3", amount=300)
    unsent = replace(third, claim=replace(third.claim, operation_id="op_4", amount=400, steps=()))
    all_of = (first, second, third, unsent)
    assert find_operation(all_of, report(REFUND, Done("re_x", 1, "USD"), "op_2")) is second
    assert find_operation(all_of, report(REFUND, Done("re_1", 1, "USD"))) is first
    assert find_operation(all_of, report(REFUND, Done("re_x", 300, "USD"))) is third
    assert find_operation(all_of, report(REFUND, Done("re_x", 100, "USD"))) is None
    assert find_operation(all_of, report(REFUND, Done("re_x", 400, "USD"))) is None
    assert find_operation(all_of, report(REFUND, Declined("no", "No."))) is None
    heard = replace(second, references=frozenset({"re_2"}))
    assert find_operation((first, heard), report(REFUND, Done("re_2", 100, "USD"))) is heard


def test_the_name_of_the_payment_names_no_operation_of_another_kind() -> None:
    paid, refund = operation(PAYMENT, "succeeded"), operation(REFUND, amount=5)
    told = report(REFUND, Done("re_1", 5, "USD"), PAYMENT_OPERATION)
    assert find_operation((paid, refund), told) is refund
    assert decided(payment_that_is(SUCCEEDED), told, paid) == Contradiction("refund_by_somebody_else")


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (PAYMENT, PENDING),
        (CAPTURE, PROCESSING),
        (CAPTURE, REQUIRES_ACTION),
        (CANCEL, PROCESSING),
        (REFUND, AUTHORIZED),
    ],
)
def test_what_the_payment_has_not_got_to_is_early(kind: OperationKind, status: StatusValue) -> None:
    told = report(kind, APPROVED if kind is PAYMENT else Done("x", 1234, "USD"))
    assert isinstance(decided(payment_that_is(status), told, operation(PAYMENT)), Early)


def test_an_authorization_that_nobody_asked_to_end_is_canceled() -> None:
    ended = report(CANCEL, Done("ch_1", 1234, "USD"))
    for status, code in ((AUTHORIZED, "authorization_expired"), (REQUIRES_ACTION, "canceled")):
        verdict = decided(payment_that_is(status), ended, operation(PAYMENT))
        assert isinstance(verdict, Apply)
        assert verdict.decision.payment is not None
        assert verdict.decision.payment.status == CANCELED
        assert verdict.decision.failure[0] == code
        assert verdict.decision.settled is False
    assert decided(payment_that_is(CANCELED), ended, operation(PAYMENT, "failed")) == Known("payment")
    paid = decided(payment_that_is(SUCCEEDED), ended, operation(PAYMENT, "succeeded"))
    assert paid == Contradiction("canceled_while_succeeded", "payment")


def test_a_payment_that_was_told_to_end_fails_or_is_looked_at_again_at_once() -> None:
    waiting, ending = payment_that_is(REQUIRES_ACTION), operation(PAYMENT, step=PLAN.cancel)
    done = decided(waiting, report(CANCEL, Done("cn_1", 1234, "USD")), ending)
    assert isinstance(done, Apply)
    assert done.decision.failure[0] == "action_expired"
    refused = decided(waiting, report(CANCEL, Declined("no", "No.")), ending)
    assert isinstance(refused, Apply)
    assert refused.decision.claim_after_s == 0.0


@pytest.mark.parametrize(
    ("status", "ended", "told", "kind"),
    [
        (FAILED, operation(PAYMENT, "failed"), report(PAYMENT, APPROVED), "approved_while_failed"),
        (CANCELED, operation(PAYMENT, "failed"), report(PAYMENT, APPROVED), "approved_while_canceled"),
        (
            SUCCEEDED,
            operation(PAYMENT, "succeeded"),
            report(PAYMENT, replace(APPROVED, amount=1)),
            "approved_amount_differs",
        ),
        (
            SUCCEEDED,
            operation(PAYMENT, "succeeded"),
            report(PAYMENT, Declined("no", "No.")),
            "payment_declined_after_it_succeeded",
        ),
        (
            REFUNDED,
            operation(REFUND, "succeeded"),
            report(REFUND, Declined("no", "No."), "op_1"),
            "refund_declined_after_it_succeeded",
        ),
        (
            SUCCEEDED,
            operation(REFUND, "failed"),
            report(REFUND, Done("re_1", 1234, "USD"), "op_1"),
            "refund_done_after_it_failed",
        ),
        (
            SUCCEEDED,
            operation(PAYMENT, "succeeded"),
            report(REFUND, Done("re_1", 1, "USD")),
            "refund_by_somebody_else",
        ),
    ],
)
def test_what_contradicts_what_is_known_is_an_anomaly(
    status: StatusValue, ended: Standing, told: Report, kind: str
) -> None:
    verdict = decided(payment_that_is(status), told, ended)
    assert isinstance(verdict, Contradiction)
    assert verdict.kind == kind


def test_a_capture_that_an_automatic_payment_had_is_known() -> None:
    told = report(CAPTURE, Done("cp_1", 1234, "USD"))
    assert decided(payment_that_is(SUCCEEDED), told, operation(PAYMENT, "succeeded")) == Known()


def test_only_an_authorization_that_the_psp_ended_itself_is_forgiven() -> None:
    authorized, ended = replace(APPROVED, captured=False), operation(PAYMENT, "failed")
    expired = payment_that_is(FAILED, psp_reference="ch_1")
    expired.failure.CopyFrom(Failure(code="action_expired", message=""))
    for payment in (payment_that_is(CANCELED), expired):
        assert decided(payment, report(PAYMENT, authorized), ended) == Known("payment")
        assert isinstance(decided(payment, report(PAYMENT, APPROVED), ended), Contradiction)
    never_sent = payment_that_is(CANCELED, psp_reference="")
    assert isinstance(decided(never_sent, report(PAYMENT, authorized), ended), Contradiction)


def test_the_score_of_a_payment_that_a_webhook_ends_is_kept() -> None:
    scored = operation(PAYMENT)
    scored = replace(scored, claim=replace(scored.claim, risk_score=42))
    verdict = decided(payment_that_is(PROCESSING), report(PAYMENT, APPROVED), scored)
    assert isinstance(verdict, Apply)
    assert verdict.decision.payment is not None
    assert verdict.decision.payment.risk_score == 42
