"""What a person's word makes of a payment whose operation was parked: never more than the PSP's own could."""

from __future__ import annotations

import pytest

from processor.operation_outcome import Ordered
from processor.outcome import ASKED_AGAIN_S
from processor.parked import Verdict, Word, decide_resolved
from processor.psp.interface import OperationKind
from tests.fixtures.changes import NOW_US, accepted_payment
from tollgate.errors import RejectedInput
from tollgate.status import NAME, StatusValue, is_legal
from tollgate.v1.payment_pb2 import Capture, Operation, OperationStatus, OperationType, Payment, Status

EXECUTED = Word(Verdict.EXECUTED, "ch_found", "seen in the dashboard", "ada@desk")
NOT_EXECUTED = Word(Verdict.NOT_EXECUTED, "", "no trace of it", "ada@desk")
OWN = Ordered("payment", OperationKind.PAYMENT, 1234)


def standing(
    status: StatusValue, capture: Capture.ValueType = Capture.CAPTURE_AUTOMATIC, **fields: int
) -> Payment:
    payment = accepted_payment(capture=capture)
    payment.status, payment.version = status, 5
    for name, value in fields.items():
        setattr(payment, name, value)
    return payment


def refund(payment: Payment, amount: int) -> Ordered:
    payment.operations.append(
        Operation(
            id="op_1",
            type=OperationType.OPERATION_TYPE_REFUND,
            amount=amount,
            status=OperationStatus.OPERATION_STATUS_PENDING,
        )
    )
    return Ordered("op_1", OperationKind.REFUND, amount)


@pytest.mark.parametrize(
    ("capture", "status", "captured"),
    [
        (Capture.CAPTURE_AUTOMATIC, Status.STATUS_SUCCEEDED, 1234),
        (Capture.CAPTURE_MANUAL, Status.STATUS_AUTHORIZED, 0),
    ],
)
def test_a_payment_that_was_executed_goes_on_under_the_psps_name(
    capture: Capture.ValueType, status: StatusValue, captured: int
) -> None:
    decision = decide_resolved(standing(Status.STATUS_PROCESSING, capture), OWN, EXECUTED, NOW_US)
    assert decision.payment is not None
    told = decision.payment.status, decision.payment.captured_amount, decision.payment.psp_reference
    assert told == (status, captured, "ch_found")
    assert decision.payment.version == 6
    is_over = capture == Capture.CAPTURE_AUTOMATIC
    assert (decision.settled, decision.claim_after_s) == (
        True if is_over else None,
        None if is_over else ASKED_AGAIN_S,
    )


def test_a_payment_that_was_not_executed_fails_and_says_so() -> None:
    decision = decide_resolved(standing(Status.STATUS_PROCESSING), OWN, NOT_EXECUTED, NOW_US)
    assert decision.payment is not None
    assert (decision.payment.status, decision.payment.failure.code) == (Status.STATUS_FAILED, "not_executed")
    assert decision.settled is False


def test_an_execution_without_a_name_at_the_psp_is_refused() -> None:
    nameless = Word(Verdict.EXECUTED, "", "it is there", "ada@desk")
    with pytest.raises(RejectedInput, match="--psp-reference"):
        decide_resolved(standing(Status.STATUS_PROCESSING), OWN, nameless, NOW_US)
    known = standing(Status.STATUS_PROCESSING)
    known.psp_reference = "ch_known"
    decision = decide_resolved(known, OWN, nameless, NOW_US)
    assert decision.payment is not None
    assert decision.payment.psp_reference == "ch_known"


def test_a_refund_that_was_executed_counts_and_one_that_was_not_leaves_the_amounts() -> None:
    payment = standing(Status.STATUS_SUCCEEDED, captured_amount=1234)
    done = decide_resolved(payment, refund(payment, 234), EXECUTED, NOW_US)
    assert done.payment is not None
    assert (done.payment.status, done.payment.refunded_amount) == (Status.STATUS_PARTIALLY_REFUNDED, 234)
    assert (done.settled, done.event) == (True, "tollgate.refund.succeeded")
    undone = decide_resolved(payment, Ordered("op_1", OperationKind.REFUND, 234), NOT_EXECUTED, NOW_US)
    assert undone.payment is not None
    assert (undone.payment.status, undone.payment.refunded_amount) == (Status.STATUS_SUCCEEDED, 0)
    assert (undone.settled, undone.event) == (False, "tollgate.refund.failed")
    assert undone.payment.operations[0].failure.code == "not_executed"


def test_an_authorization_that_stands_is_asked_about_and_one_that_does_not_is_over() -> None:
    payment = standing(Status.STATUS_AUTHORIZED, Capture.CAPTURE_MANUAL)
    payment.psp_reference = "ch_found"
    stands = decide_resolved(payment, OWN, EXECUTED, NOW_US)
    assert (stands.payment, stands.settled) == (None, None)
    over = decide_resolved(payment, OWN, NOT_EXECUTED, NOW_US)
    assert over.payment is not None
    assert over.payment.status == Status.STATUS_CANCELED


@pytest.mark.parametrize("word", [EXECUTED, NOT_EXECUTED])
@pytest.mark.parametrize("kind", list(OperationKind))
@pytest.mark.parametrize("status", list(NAME))
def test_no_word_moves_a_payment_outside_the_table_or_beyond_its_amounts(
    status: StatusValue, kind: OperationKind, word: Word
) -> None:
    captured = 0 if status < Status.STATUS_SUCCEEDED or status >= Status.STATUS_FAILED else 1234
    refunded = {Status.STATUS_PARTIALLY_REFUNDED: 234, Status.STATUS_REFUNDED: 1234}.get(status, 0)
    payment = standing(status, captured_amount=captured, refunded_amount=refunded)
    ordered = OWN if kind is OperationKind.PAYMENT else Ordered("op_1", kind, 1000)
    try:
        decision = decide_resolved(payment, ordered, word, NOW_US)
    except RejectedInput:
        return
    following = decision.payment
    if following is not None:
        assert following.status == status or is_legal(status, following.status), NAME[status]
        assert following.refunded_amount <= following.captured_amount <= following.amount
        assert following.version == 6
    assert decision.parked_reason is None
