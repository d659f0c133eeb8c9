"""The three accounts compared: a missing, a doubled and a different payment are found, nothing else."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.cli.pay_client import Paid
from tollgate.cli.pay_orders import Order, generate_orders, make_order
from tollgate.cli.pay_report import make_report, percentiles
from tollgate.cli.pay_witnesses import executing_effects
from tollgate.cli.verify_payments import Effect, Finding, Row, check_payments
from tollgate.status import NAME

CHARGE = Effect("charge", 1000, "EUR")
ROW = Row("succeeded", 1000, "EUR")


def order(
    payment_method: str = "pm_ok", capture: str = "automatic", checkout_id: str = "checkout-1"
) -> Order:
    fields = {"amount": 1000, "currency": "EUR", "payment_method": payment_method, "capture": capture}
    return make_order(checkout_id, fields, "here")


def paid(order: Order, status: str | None = None) -> Paid:
    """Seen to its end as `status`, which is what the order expects by default."""
    told: dict[str, Any] = {"status": status or NAME[order.expected], "version": 3}
    return Paid(order, sent_at_us=1, accepted_after_s=0.002, ended_after_s=0.05, payment=told)


def problems(one: Paid, row: Row | None, *effects: Effect) -> list[str]:
    checkout_id = one.order.checkout_id
    rows = {} if row is None else {checkout_id: row}
    return [finding.problem for finding in check_payments([one], rows, {checkout_id: effects})]


@pytest.mark.parametrize(
    ("one", "row", "effects"),
    [
        (paid(order()), ROW, [CHARGE]),
        (paid(order("pm_declined")), replace(ROW, status="failed"), []),
        (
            paid(order(capture="manual")),
            replace(ROW, status="authorized"),
            [replace(CHARGE, type="authorization")],
        ),
        (paid(order()), replace(ROW, status="refunded"), [CHARGE]),
        (paid(order("pm_slow_500"), "partially_refunded"), replace(ROW, status="refunded"), [CHARGE]),
    ],
)
def test_a_payment_that_is_as_it_should_be_has_no_finding(one: Paid, row: Row, effects: list[Effect]) -> None:
    assert problems(one, row, *effects) == []


def test_a_payment_missing_in_postgres_or_at_the_psp_is_found() -> None:
    assert problems(paid(order()), None, CHARGE) == ["missing"]
    assert problems(paid(order()), ROW) == ["missing"]
    assert problems(paid(order()), None) == ["missing", "missing"]


def test_a_double_effect_is_found_whatever_else_is_true() -> None:
    assert problems(paid(order()), ROW, CHARGE, CHARGE) == ["double"]
    refused = replace(
        paid(order()), accepted_after_s=None, ended_after_s=None, refusal="no answer", payment={}
    )
    assert problems(refused, None, CHARGE, CHARGE) == ["double", "refused"]


@pytest.mark.parametrize(
    "row",
    [
        replace(ROW, amount=1001),
        replace(ROW, currency="USD"),
        replace(ROW, status="processing"),
        replace(ROW, status="failed", failure_code="psp_unavailable"),
    ],
)
def test_a_different_row_is_found(row: Row) -> None:
    assert problems(paid(order()), row, CHARGE) == ["different"]


@pytest.mark.parametrize(
    "effect",
    [replace(CHARGE, amount=1), replace(CHARGE, currency="USD"), replace(CHARGE, type="authorization")],
)
def test_a_different_effect_is_found(effect: Effect) -> None:
    assert problems(paid(order()), ROW, effect) == ["different"]


def test_money_moved_for_a_failed_payment_is_found() -> None:
    failed = replace(ROW, status="failed")
    assert problems(paid(order("pm_declined")), failed, CHARGE) == ["different"]


def test_an_end_that_the_method_does_not_have_is_found() -> None:
    assert problems(paid(order(), "failed"), replace(ROW, status="failed")) == ["different"]
    assert problems(paid(order("pm_declined"), "succeeded"), ROW, CHARGE) == ["different"]


def test_what_never_ended_is_unfinished_and_still_must_be_in_postgres() -> None:
    open_ = replace(paid(order(), "processing"), ended_after_s=None, refusal="still processing")
    assert problems(open_, replace(ROW, status="processing")) == ["unfinished"]
    assert problems(open_, None) == ["missing", "unfinished"]


@given(st.integers(1, 30), st.data())
def test_exactly_the_broken_payments_are_found(count: int, data: st.DataObject) -> None:
    orders = generate_orders(
        count, Random(1), amount=1000, currency="EUR", payment_method="pm_ok", capture="automatic"
    )
    rows = {one.checkout_id: ROW for one in orders}
    effects = {one.checkout_id: [CHARGE] for one in orders}
    broken = data.draw(st.sets(st.sampled_from([one.checkout_id for one in orders])))
    for number, checkout_id in enumerate(sorted(broken)):
        match number % 3:
            case 0:
                del rows[checkout_id]
            case 1:
                effects[checkout_id] = [CHARGE, CHARGE]
            case _:
                rows[checkout_id] = replace(ROW, amount=999)
    findings = check_payments([paid(one) for one in orders], rows, effects)
    assert {finding.checkout_id for finding in findings} == broken
    assert len(findings) == len(broken)


def test_only_the_merchants_own_executing_effects_count() -> None:
    ledger = {
        "effects": [
            {"type": kind, "checkout_id": "c", "merchant": merchant, "amount": 5, "currency": "EUR"}
            for kind, merchant in (("authorization", "demo"), ("capture", "demo"), ("charge", "other"))
        ]
    }
    assert executing_effects(ledger, "demo") == {"c": [Effect("authorization", 5, "EUR")]}


def test_percentiles_are_by_nearest_rank() -> None:
    hundred = percentiles([n / 1000 for n in range(100, 0, -1)])
    assert (hundred.p50, hundred.p90, hundred.p99, hundred.max) == (50, 90, 99, 100)
    assert percentiles([0.002]).p99 == 2
    assert percentiles([]).max is None


def test_a_report_counts_replays_and_leaves_them_out_of_the_times() -> None:
    fresh = paid(order())
    replay = replace(paid(order(checkout_id="checkout-2")), replayed=True, ended_after_s=9.0, retries=2)
    report = make_report([fresh, replay], 2.0, [])
    assert (report.payments, report.accepted, report.replayed, report.retries) == (2, 2, 1, 2)
    assert (report.per_second, report.ended_ms.max, report.statuses) == (1.0, 50, {"succeeded": 2})
    assert report.ok
    assert not make_report([fresh], 1.0, [Finding("checkout-1", "missing", "")]).ok
