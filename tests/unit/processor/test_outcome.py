"""What an answer makes of a payment: held for every order of answers that a PSP can give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.operation import (
    RETENTION_MARGIN_S,
    Answer,
    Call,
    CallKind,
    Claim,
    Execute,
    Expire,
    LookUp,
    Park,
    Postpone,
    Send,
    TakenStep,
    in_doubt,
    next_step,
)
from processor.outcome import (
    ANSWER_OF,
    RetryPolicy,
    Timers,
    begin,
    decide_expired,
    decide_outcome,
    decide_risk_declined,
)
from processor.psp.interface import (
    ActionRequired,
    Approved,
    Awaited,
    Declined,
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
from tollgate.status import (
    AUTHORIZED,
    FAILED,
    PENDING,
    PROCESSING,
    SUCCEEDED,
    TERMINAL,
    TRANSITIONS,
    is_legal,
)
from tollgate.v1.payment_pb2 import Capture, Payment

POLICY = RetryPolicy(sends_max=3)
DAY_S = 86_400.0
TIMERS = Timers(action_deadline_us=NOW_US + 3_600_000_000, authorization_window_s=DAY_S)
STORED = TakenStep("charge", PspRequest("POST", "/charges", "key", b"{}"), NOW_US)


def plan_of(resolution: Resolution) -> PspPlan:
    steps = {kind: (kind.value,) for kind in OperationKind} | {OperationKind.PAYMENT: ("charge",)}
    terms = {step: PspTerms(resolution, DAY_S) for names in steps.values() for step in names}
    return PspPlan(steps, terms, authorization_window_s=DAY_S)


REPLAY = plan_of(Resolution.REPLAY)
IMPATIENT = replace(
    REPLAY,
    terms={step: replace(terms, replayed_s_max=600.0) for step, terms in REPLAY.terms.items()},
)

answers = st.one_of(
    st.builds(
        Approved,
        reference=st.just("ch_1"),
        amount=st.sampled_from([1234, 1235]),
        currency=st.sampled_from(["USD", "EUR"]),
        captured=st.booleans(),
    ),
    st.builds(
        Declined, code=st.just("insufficient_funds"), message=st.just("No."), reference=st.just("ch_1")
    ),
    st.builds(ActionRequired, reference=st.just("ch_1"), url=st.just("https://psp.example/3ds")),
    st.builds(Retryable, reason=st.just("429"), retry_after_s=st.none() | st.floats(0, 1e9)),
    st.builds(Unknown, reason=st.just("time-out")),
    st.builds(Awaited, reference=st.just("ch_1")),
)
calls = st.builds(Call, st.sampled_from(CallKind), st.none() | st.sampled_from(Answer))
payments = st.builds(
    lambda status, capture, updated: Payment(
        merchant="acme",
        checkout_id="checkout-0001",
        status=status,
        version=5,
        amount=1234,
        currency="USD",
        capture=capture,
        created_at_us=NOW_US,
        updated_at_us=NOW_US + updated,
        expires_at_us=NOW_US + 10,
    ),
    st.sampled_from(sorted(TRANSITIONS)),
    st.sampled_from([Capture.CAPTURE_AUTOMATIC, Capture.CAPTURE_MANUAL]),
    st.integers(0, 10),
)


def processing(capture: Capture.ValueType = Capture.CAPTURE_AUTOMATIC) -> Payment:
    payment = accepted_payment(capture=capture)
    payment.status = PROCESSING
    payment.version = 2
    return payment


def sent(*heard: Answer | None) -> tuple[Call, ...]:
    return tuple(Call(CallKind.SEND, answer) for answer in heard)


def claimed(payment: Payment, earlier: Sequence[Call] = (), stored: TakenStep | None = None) -> Claim:
    steps = (replace(stored, calls=tuple(earlier)),) if stored else ()
    return Claim(payment, "payment", 1, 15.0, OperationKind.PAYMENT, payment.amount, NOW_US, steps)


@given(payments, st.lists(calls, max_size=6), answers, st.floats(0, 1, exclude_max=True))
def test_no_answer_moves_a_payment_outside_the_status_table(
    payment: Payment, earlier: list[Call], outcome: Outcome, jitter: float
) -> None:
    before = Payment.FromString(payment.SerializeToString())
    all_calls = [*earlier, Call(CallKind.SEND, ANSWER_OF[type(outcome)])]
    decision = decide_outcome(payment, all_calls, outcome, NOW_US, POLICY, jitter, TIMERS)
    assert payment == before
    if decision.payment is None:
        return
    assert is_legal(payment.status, decision.payment.status)
    assert payment.status not in TERMINAL
    assert decision.payment.version == payment.version + 1
    assert decision.payment.updated_at_us >= payment.updated_at_us
    assert 0 <= decision.payment.refunded_amount <= decision.payment.captured_amount <= payment.amount


@given(payments, st.lists(calls, max_size=6), answers, st.floats(0, 1, exclude_max=True))
def test_an_operation_either_ends_or_is_scheduled_or_waits_for_someone(
    payment: Payment, earlier: list[Call], outcome: Outcome, jitter: float
) -> None:
    all_calls = [*earlier, Call(CallKind.SEND, ANSWER_OF[type(outcome)])]
    decision = decide_outcome(payment, all_calls, outcome, NOW_US, POLICY, jitter, TIMERS)
    ways = [
        decision.settled is not None,
        decision.claim_after_s is not None,
        decision.parked_reason is not None,
    ]
    assert sum(ways) == 1
    if isinstance(outcome, Retryable | Unknown) and decision.claim_after_s is not None:
        assert 0 <= decision.claim_after_s <= POLICY.retry_after_max_s


@given(st.lists(calls, max_size=6), answers, st.floats(0, 1, exclude_max=True))
def test_in_doubt_is_never_turned_into_failed_but_by_the_psp_s_own_word(
    earlier: list[Call], outcome: Outcome, jitter: float
) -> None:
    all_calls = [*earlier, Call(CallKind.SEND, ANSWER_OF[type(outcome)])]
    decision = decide_outcome(processing(), all_calls, outcome, NOW_US, POLICY, jitter, TIMERS)
    if in_doubt(all_calls) and not isinstance(outcome, Declined):
        assert decision.payment is None or decision.payment.status != FAILED


@given(
    st.lists(calls, max_size=6),
    st.sampled_from(Resolution),
    st.integers(round(-2 * RETENTION_MARGIN_S * 1e6), round(2 * DAY_S * 1e6)),
)
def test_after_an_unknown_only_the_stored_bytes_go_out_and_only_while_the_key_is_surely_known(
    earlier: list[Call], resolution: Resolution, age_us: int
) -> None:
    claim = claimed(processing(), earlier, STORED)
    step = next_step(claim, plan_of(resolution), NOW_US + age_us)
    assert isinstance(step, Send | LookUp | Park)
    if isinstance(step, Send | LookUp):
        assert step.taken.request is STORED.request
    if in_doubt(earlier) and isinstance(step, Send):
        assert resolution is Resolution.REPLAY
        assert -RETENTION_MARGIN_S * 1e6 <= age_us < (DAY_S - RETENTION_MARGIN_S) * 1e6


@pytest.mark.parametrize("late", [Answer.APPROVED, Answer.DECLINED, Answer.ACTION_REQUIRED])
def test_an_answer_that_came_too_late_to_decide_leaves_the_doubt(late: Answer) -> None:
    assert in_doubt(sent(late))
    claim, day = claimed(processing(), sent(late), STORED), round(DAY_S * 1e6)
    assert next_step(claim, REPLAY, NOW_US) == Send(claim.steps[-1])
    assert isinstance(next_step(claim, REPLAY, NOW_US + day), Park)
    assert next_step(claim, plan_of(Resolution.LOOKUP), NOW_US) == LookUp(claim.steps[-1])


def test_clocks_that_differ_by_less_than_the_margin_park_nothing() -> None:
    claim = claimed(processing(), sent(None), STORED)
    assert next_step(claim, REPLAY, NOW_US - 100_000) == Send(claim.steps[-1])
    assert isinstance(next_step(claim, REPLAY, NOW_US - round((RETENTION_MARGIN_S + 1) * 1e6)), Park)


def test_replays_end_where_the_psp_s_terms_say_so_before_its_key_does() -> None:
    claim = claimed(processing(), sent(Answer.UNKNOWN), STORED)
    assert next_step(claim, IMPATIENT, NOW_US + 599_000_000) == Send(claim.steps[-1])
    assert isinstance(next_step(claim, IMPATIENT, NOW_US + 600_000_000), Park)
    assert isinstance(next_step(claim, REPLAY, NOW_US + 600_000_000), Send)


def test_a_claim_on_a_call_without_an_answer_is_unknown() -> None:
    assert in_doubt(sent(None))
    old = NOW_US + round(DAY_S * 1e6)
    assert isinstance(next_step(claimed(processing(), sent(None), STORED), REPLAY, old), Park)
    assert isinstance(next_step(claimed(processing(), sent(None), STORED), REPLAY, NOW_US), Send)


def test_a_look_up_that_finds_nothing_settles_the_doubt() -> None:
    heard = (*sent(Answer.UNKNOWN), Call(CallKind.LOOK_UP, Answer.RETRYABLE))
    assert not in_doubt(heard)
    assert in_doubt((*heard, *sent(None)))


def test_a_look_up_does_not_undo_an_approval_that_came_late() -> None:
    assert in_doubt((*sent(Answer.APPROVED), Call(CallKind.LOOK_UP, Answer.RETRYABLE)))


def test_a_refusal_without_effect_after_an_unknown_settles_nothing() -> None:
    assert in_doubt(sent(Answer.UNKNOWN, Answer.RETRYABLE))


@pytest.mark.parametrize("lateness_us", [0, 1, 1_000_000])
def test_a_payment_not_sent_before_its_end_expires_without_a_call(lateness_us: int) -> None:
    payment = processing()
    assert next_step(claimed(payment), REPLAY, payment.expires_at_us + lateness_us) == Expire()
    assert next_step(claimed(payment), REPLAY, payment.expires_at_us - 1) == Execute("charge")
    decision = decide_expired(payment, payment.expires_at_us)
    assert decision.payment is not None
    assert (decision.payment.status, decision.payment.failure.code) == (FAILED, "expired")


def test_once_sent_a_payment_does_not_expire() -> None:
    payment = processing()
    claim = claimed(payment, sent(Answer.RETRYABLE), STORED)
    assert next_step(claim, REPLAY, payment.expires_at_us + 1) == Send(claim.steps[-1])


def test_without_an_adapter_a_payment_waits() -> None:
    assert isinstance(next_step(claimed(processing()), None, NOW_US), Postpone)
    assert isinstance(next_step(claimed(processing(), sent(None), STORED), None, NOW_US), Postpone)


def test_retries_end_as_psp_unavailable_only_when_no_call_can_have_had_an_effect() -> None:
    def after(*heard: Answer) -> Payment | None:
        outcome = Retryable("429")
        return decide_outcome(processing(), sent(*heard), outcome, NOW_US, POLICY, 0.5, TIMERS).payment

    assert after(Answer.RETRYABLE, Answer.RETRYABLE) is None
    ended = after(Answer.RETRYABLE, Answer.RETRYABLE, Answer.RETRYABLE)
    assert ended is not None
    assert ended.failure.code == "psp_unavailable"
    assert after(Answer.UNKNOWN, *[Answer.RETRYABLE] * 50) is None


@pytest.mark.parametrize(
    "approved",
    [
        Approved("ch_1", 1235, "USD", captured=True),
        Approved("ch_1", 1234, "EUR", captured=True),
        Approved("ch_1", 1234, "USD", captured=False),
    ],
)
def test_an_approval_of_something_else_is_an_anomaly_and_never_a_success(approved: Approved) -> None:
    decision = decide_outcome(processing(), sent(Answer.APPROVED), approved, NOW_US, POLICY, 0.0, TIMERS)
    assert decision.payment is None
    assert decision.settled is None
    assert decision.anomaly
    assert decision.parked_reason


def test_proof_of_an_effect_on_an_ended_payment_is_an_anomaly() -> None:
    payment = processing()
    payment.status = FAILED
    approved = Approved("ch_1", 1234, "USD", captured=True)
    decision = decide_outcome(payment, sent(Answer.APPROVED), approved, NOW_US, POLICY, 0.0, TIMERS)
    assert (decision.payment, decision.anomaly) == (None, "approved_while_failed")


@pytest.mark.parametrize(
    ("capture", "status", "captured"),
    [(Capture.CAPTURE_AUTOMATIC, SUCCEEDED, 1234), (Capture.CAPTURE_MANUAL, AUTHORIZED, 0)],
)
def test_an_approval_captures_at_once_or_authorizes(
    capture: Capture.ValueType, status: int, captured: int
) -> None:
    approved = Approved("ch_1", 1234, "USD", captured=capture == Capture.CAPTURE_AUTOMATIC)
    decision = decide_outcome(
        processing(capture), sent(Answer.APPROVED), approved, NOW_US, POLICY, 0.0, TIMERS
    )
    assert decision.payment is not None
    assert (decision.payment.status, decision.payment.captured_amount) == (status, captured)
    assert decision.settled is (True if status == SUCCEEDED else None)


@given(st.integers(1, 100), st.floats(0, 1, exclude_max=True))
def test_an_unknown_is_asked_about_within_two_seconds_and_then_at_least_every_ten(
    count: int, jitter: float
) -> None:
    unheard = sent(*[Answer.UNKNOWN] * count)
    decision = decide_outcome(processing(), unheard, Unknown("time-out"), NOW_US, POLICY, jitter, TIMERS)
    assert decision.claim_after_s is not None
    assert 0 <= decision.claim_after_s <= (2.0 if count == 1 else 10.0)


def test_risk_declines_with_its_score_and_before_any_call() -> None:
    decision = decide_risk_declined(processing(), 91, NOW_US)
    assert decision.payment is not None
    assert (decision.payment.failure.code, decision.payment.risk_score) == ("risk_declined", 91)
    assert decision.settled is False


def test_only_a_pending_payment_begins() -> None:
    payment = accepted_payment()
    begun = begin(payment, NOW_US)
    assert begun is not None
    assert (payment.status, begun.status, begun.version) == (PENDING, PROCESSING, 1)
    assert begin(begun, NOW_US) is None
