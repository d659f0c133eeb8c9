"""The book of charges: what captures, cancels and refunds may do together."""

from __future__ import annotations

from itertools import count
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tollgate.local.simulator.charges import (
    Book,
    Charge,
    Execution,
    decide_cancel,
    decide_capture,
    decide_charge,
    decide_refund,
    decide_visit,
)
from tollgate.local.simulator.requests import AmountOrder, ChargeOrder

AT_US = 1_700_000_000_000_000


def _order(capture: str = "automatic", amount: int = 1000) -> ChargeOrder:
    fields: dict[str, Any] = {
        "checkout_id": "checkout-1",
        "merchant": "demo",
        "amount": amount,
        "currency": "EUR",
        "capture": capture,
        "payment_method": "pm_ok",
        "reference": "demo/checkout-1",
    }
    return ChargeOrder.model_validate(fields)


class _Psp:
    """A book with everything decided at once."""

    def __init__(self) -> None:
        self.book = Book()
        self.effects: list[tuple[str, int]] = []
        self._ids = count(1)

    def new_id(self, prefix: str) -> str:
        return f"{prefix}_{next(self._ids)}"

    def carry_out(self, execution: Execution) -> int:
        self.book.apply(execution)
        if execution.effect:
            self.effects.append((execution.effect.type, execution.effect.amount))
        return execution.status

    def charge(self, capture: str, amount: int = 1000, decline: str | None = None) -> str:
        execution = decide_charge(_order(capture, amount), decline, "k0", "d", AT_US, self.new_id)
        self.carry_out(execution)
        return str(execution.answer["id"])

    def do(self, operation: str, charge_id: str, amount: int | None = None) -> int:
        charge = self.book.charge(charge_id)
        assert charge is not None
        key = self.new_id("key")
        if operation == "cancel":
            return self.carry_out(decide_cancel(charge, key, "d", AT_US, self.new_id))
        decide = decide_capture if operation == "capture" else decide_refund
        return self.carry_out(decide(charge, AmountOrder(amount=amount), key, "d", AT_US, self.new_id))


def test_an_automatic_capture_is_one_charge() -> None:
    psp = _Psp()
    psp.charge("automatic")
    assert psp.effects == [("charge", 1000)]


def test_a_manual_capture_is_an_authorization_and_then_one_capture() -> None:
    psp = _Psp()
    charge = psp.charge("manual")
    assert [psp.do("capture", charge, 600), psp.do("capture", charge, 100)] == [200, 409]
    assert psp.effects == [("authorization", 1000), ("capture", 600)]


def test_a_decline_has_no_effect_and_can_be_looked_up() -> None:
    psp = _Psp()
    psp.charge("automatic", decline="insufficient_funds")
    assert psp.effects == []
    (charge,) = psp.book.by_reference("demo/checkout-1")
    assert (charge["status"], charge["captured_amount"]) == ("declined", 0)


def test_a_canceled_authorization_is_neither_captured_nor_refunded() -> None:
    psp = _Psp()
    charge = psp.charge("manual")
    assert [psp.do(operation, charge) for operation in ("cancel", "capture", "refund")] == [200, 409, 409]
    assert psp.effects == [("authorization", 1000), ("cancel", 1000)]


def test_two_full_refunds_come_to_one() -> None:
    psp = _Psp()
    charge = psp.charge("automatic")
    assert [psp.do("refund", charge), psp.do("refund", charge)] == [200, 422]


OPERATION = st.tuples(
    st.sampled_from(["capture", "cancel", "refund"]), st.none() | st.integers(min_value=1, max_value=1500)
)


@given(capture=st.sampled_from(["automatic", "manual"]), operations=st.lists(OPERATION, max_size=8))
def test_refunded_is_at_most_captured_is_at_most_authorized(
    capture: str, operations: list[tuple[str, int | None]]
) -> None:
    psp = _Psp()
    charge = psp.charge(capture)
    for operation, amount in operations:
        psp.do(operation, charge, amount)
    totals = dict.fromkeys(("charge", "authorization", "capture", "cancel", "refund"), 0)
    for kind, amount in psp.effects:
        totals[kind] += amount
    captured = totals["charge"] + totals["capture"]
    assert totals["refund"] <= captured <= 1000
    assert not (totals["capture"] and totals["cancel"])
    state = psp.book.charge(charge)
    assert state is not None
    assert (state["captured_amount"], state["refunded_amount"]) == (captured, totals["refund"])


def _waiting(psp: _Psp) -> Charge:
    """A charge that waits for its payer."""
    execution = decide_charge(_order(), None, "k0", "d", AT_US, psp.new_id, action_at="http://psp/3ds/")
    psp.carry_out(execution)
    return execution.answer


def _visit(psp: _Psp, charge_id: str, *, approves: bool) -> bool:
    """Whether it decided anything."""
    charge = psp.book.charge(charge_id)
    assert charge is not None
    visited = decide_visit(charge, approves, AT_US)
    if visited is not None:
        psp.carry_out(visited)
    return visited is not None


def test_a_payer_decides_once_and_what_they_confirm_is_charged_under_the_first_key() -> None:
    psp = _Psp()
    waiting = _waiting(psp)
    assert (waiting["url"], psp.effects) == (f"http://psp/3ds/{waiting['id']}", [])
    decided = [_visit(psp, waiting["id"], approves=choice) for choice in (True, True, False)]
    assert decided == [True, False, False]
    assert psp.effects == [("charge", 1000)]
    first = psp.book.answer("k0")
    assert first is not None
    assert b"requires_action" in first.body  # a replay is answered as at first: the charge is to be read
    assert psp.do("refunds", waiting["id"]) == 200


def test_a_payer_who_declines_and_one_who_is_too_late_move_nothing() -> None:
    psp = _Psp()
    declined, canceled = _waiting(psp)["id"], _waiting(psp)["id"]
    assert _visit(psp, declined, approves=False)
    assert not _visit(psp, declined, approves=True)
    assert psp.do("cancel", canceled) == 200
    assert not _visit(psp, canceled, approves=True)
    assert psp.effects == []
