"""Each rule of `tollgate verify` finds what it is for, and nothing where all witnesses agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.cli.told_payment import (
    BEGUN_US,
    CHECKOUT_ID,
    LOOK,
    OTHER_FINGERPRINT,
    REQUEST,
    SECOND,
    answer,
    asked,
    key_of,
    posted,
    shown,
    state,
    told_payment,
    view,
)
from tollgate.cli.proof.judging import RULES, Tally, judge
from tollgate.cli.proof.testimony import Accepted, Effect, Event, Snapshot, Witnessed

Tamper = Callable[[Witnessed], None]


def found(testimony: Witnessed) -> set[str]:
    tally = Tally()
    judge([testimony], LOOK, tally)
    return set(tally.found)


def nothing_but_a_promise(t: Witnessed) -> None:
    """Accepted, and nobody knows it."""
    t.row = None
    t.told = t.told[:1]
    t.operations, t.accepted, t.stored, t.events, t.snapshots, t.effects = [], [], [], [], [], []
    t.shipped_by = set()


def only_on_its_way(t: Witnessed) -> None:
    nothing_but_a_promise(t)
    t.accepted = [Accepted("3/17", 0, is_taken=False, state=state(0, "pending", 0, 0))]


def skipped_by_intake(t: Witnessed) -> None:
    nothing_but_a_promise(t)
    t.accepted = told_payment().accepted


def with_row(**changes: Any) -> Tamper:
    def tamper(t: Witnessed) -> None:
        assert t.row is not None
        t.row = t.row._replace(state=t.row.state._replace(**changes))

    return tamper


def add_told(*answers: object) -> Tamper:
    return lambda t: t.told.extend(answers)  # type: ignore[arg-type]


def add_effect(kind: str, key: str, amount: int = 1000, currency: str = "EUR") -> Tamper:
    return lambda t: t.effects.append(Effect("x_1", kind, key, amount, currency, BEGUN_US))


def drop(name: str, index: int) -> Tamper:
    def tamper(t: Witnessed) -> None:
        del getattr(t, name)[index]

    return tamper


def swap_events(t: Witnessed) -> None:
    t.events[2], t.events[3] = t.events[3], t.events[2]


def rewrite_event(t: Witnessed) -> None:
    t.events.append(Event("3/99", "", 5, state(5, "failed", 0, 0)))


def skip_a_status(t: Witnessed) -> None:
    """Version 3 says failed, and version 4 goes on."""
    t.events[2] = t.events[2]._replace(state=state(3, "failed", 0, 0))
    t.snapshots = [one for one in t.snapshots if one.state.version != 3]


def late_first_status(t: Witnessed) -> None:
    last = t.snapshots[-1]
    t.snapshots.append(Snapshot("0/99", 0, last.sent_us, state(2, "processing", 0, 0)))


def fail_it(t: Witnessed) -> None:
    with_row(status="failed", captured=0, refunded=0)(t)


def fail_refund(t: Witnessed) -> None:
    t.operations[1] = t.operations[1]._replace(status="failed")


def park(t: Witnessed) -> None:
    t.operations[1] = t.operations[1]._replace(status="pending", parked_reason="retention is over")


def leave_open(t: Witnessed) -> None:
    with_row(status="processing", captured=0, refunded=0)(t)


def leave_operation_open(t: Witnessed) -> None:
    t.operations[1] = t.operations[1]._replace(status="pending")


def forget_in_the_shard(t: Witnessed) -> None:
    t.stored = []


def make_the_shard_lag(t: Witnessed) -> None:
    t.stored[0] = t.stored[0]._replace(state=state(5, "succeeded", 1000, 0))


def let_the_shard_run_ahead(t: Witnessed) -> None:
    t.stored[0] = t.stored[0]._replace(state=state(8, "refunded", 1000, 1000))


def change_what_was_shipped(t: Witnessed) -> None:
    t.accepted[0] = t.accepted[0]._replace(state=t.accepted[0].state._replace(amount=999))


def other_fingerprint_in_a_status(t: Witnessed) -> None:
    t.snapshots[2] = t.snapshots[2]._replace(
        state=t.snapshots[2].state._replace(fingerprint=OTHER_FINGERPRINT)
    )


REPLAYED = {"code": "idempotency_key_reused"}
AFTER_ALL = 20.0
CASES: list[tuple[str, Tamper]] = [
    ("I1 lost", nothing_but_a_promise),
    ("I1 skipped", skipped_by_intake),
    ("I1 not taken in", only_on_its_way),
    ("I1 forgotten", forget_in_the_shard),
    ("I1 lost operation", drop("operations", 0)),
    ("I1 false 404", add_told(answer(AFTER_ALL, 404, {"code": "not_found"}))),
    (
        "I1 false 404",
        add_told(answer(AFTER_ALL, 404, {}, path=f"/v1/payments/{CHECKOUT_ID}/operations/op_refund")),
    ),
    ("I1 refused replay", add_told(posted(AFTER_ALL, 422, REPLAYED))),
    ("I1 set aside", lambda t: t.dead_letters.append("poison")),
    ("I2 two operations", add_told(asked(AFTER_ALL, "refund", "op_second", 300, "refund-1"))),
    ("I2 double", add_effect("charge", key_of("payment", "charge"))),
    ("I2 double", add_effect("capture", key_of("op_capture", "capture"))),
    ("I2 double", add_effect("refund", key_of("op_refund", "refund"), 300)),
    ("I2 unasked", lambda t: setattr(t, "row", None)),
    ("I2 foreign effect", add_effect("refund", key_of("op_nobodys", "refund"), 1)),
    ("I2 denied", fail_it),
    ("I2 denied", with_row(status="canceled", captured=0, refunded=0)),
    ("I2 denied", fail_refund),
    ("I2 no effect", drop("effects", 1)),
    ("I2 no effect", drop("effects", 2)),
    ("I2 amount at the PSP", lambda t: t.effects.__setitem__(0, t.effects[0]._replace(amount=999))),
    ("I2 amount at the PSP", lambda t: t.effects.__setitem__(1, t.effects[1]._replace(currency="USD"))),
    ("I2 amount at the PSP", lambda t: t.effects.__setitem__(2, t.effects[2]._replace(amount=1001))),
    ("I2 sums at the PSP", lambda t: t.effects.__setitem__(2, t.effects[2]._replace(amount=200))),
    ("I2 parked", park),
    ("I2 anomaly", lambda t: t.anomalies.append("approved_while_failed")),
    ("I5 sums of operations", with_row(refunded=200)),
    ("I5 different", with_row(amount=1001)),
    ("I5 different", with_row(currency="USD")),
    ("I5 different", with_row(payment_method="pm_other")),
    ("I5 different", with_row(fingerprint=OTHER_FINGERPRINT)),
    ("I5 different", change_what_was_shipped),
    ("I5 different", other_fingerprint_in_a_status),
    (
        "I5 different",
        add_told(posted(AFTER_ALL, 200, shown(7, "partially_refunded", 1000, 300), {**REQUEST, "amount": 2})),
    ),
    (
        "I5 different",
        add_told(answer(AFTER_ALL, 200, {**shown(7, "partially_refunded", 1000, 300), "amount": 2})),
    ),
    ("I5 amounts", with_row(captured=1001)),
    ("I5 amounts", with_row(refunded=1001)),
    ("I5 amounts", add_told(view(AFTER_ALL, 7, "partially_refunded", 1000, 1001))),
    ("I5 version went back", add_told(view(AFTER_ALL, 6, "succeeded", 1000))),
    ("I5 version went back", add_told(answer(AFTER_ALL, 304, {"version": 3}))),
    ("I5 left its end", lambda t: t.told.extend([view(8, 7, "refunded", 1000, 1000), view(9, 7, "failed")])),
    ("I5 no way there", add_told(view(AFTER_ALL, 8, "authorized"))),
    ("I5 told otherwise", add_told(view(AFTER_ALL, 7, "partially_refunded", 1000, 400))),
    ("I5 told otherwise", add_told(view(AFTER_ALL, 8, "refunded", 1000, 1000))),
    ("I5 event order", drop("events", 2)),
    ("I5 event order", drop("events", 0)),
    ("I5 event order", swap_events),
    ("I5 illegal step", skip_a_status),
    ("I5 rewritten", rewrite_event),
    ("I5 rewritten", lambda t: t.events.__setitem__(2, t.events[2]._replace(told_version=4))),
    ("I5 status order", late_first_status),
    ("I5 last event", drop("events", -1)),
    ("I5 last event", lambda t: t.events.clear()),
    ("I5 last status", drop("snapshots", -1)),
    ("I5 last status", lambda t: t.snapshots.clear()),
    ("I5 shard differs", make_the_shard_lag),
    ("I5 ahead", let_the_shard_run_ahead),
    ("I7 open too long", leave_open),
    ("I7 open too long", leave_operation_open),
    ("I7 untold", lambda t: t.unpublished_us.append(BEGUN_US)),
]


@pytest.mark.parametrize(("rule", "tamper"), CASES, ids=[f"{n} {rule}" for n, (rule, _) in enumerate(CASES)])
def test_a_rule_finds_what_one_witness_says_otherwise(rule: str, tamper: Tamper) -> None:
    testimony = told_payment()
    tamper(testimony)
    assert rule in found(testimony)


def test_where_all_witnesses_agree_nothing_is_found_and_every_rule_has_looked() -> None:
    tally = Tally()
    judge([told_payment()], LOOK, tally)
    assert not tally.findings
    assert set(tally.checked) == {rule.name for rule in RULES}


def test_every_rule_has_a_case_that_it_finds() -> None:
    assert {rule.name for rule in RULES} == {rule for rule, _ in CASES}


def test_what_has_just_changed_is_under_way_and_only_what_is_never_right_counts() -> None:
    testimony = told_payment()
    drop("snapshots", -1)(testimony)
    make_the_shard_lag(testimony)
    drop("effects", 2)(testimony)
    just_now = replace(LOOK, began_us=BEGUN_US + 8 * SECOND)
    tally = Tally()
    judge([testimony], just_now, tally)
    assert not tally.findings
    add_effect("capture", "again")(testimony)
    judge([testimony], just_now, tally)
    assert "I2 double" in tally.found


def test_repeats_of_events_and_statuses_are_no_findings() -> None:
    testimony = told_payment()
    testimony.events += testimony.events[3:]
    testimony.snapshots += testimony.snapshots[2:]
    assert not found(testimony)


def test_a_status_that_was_under_way_when_another_relay_told_a_newer_is_no_finding() -> None:
    testimony = told_payment()
    sent_us = testimony.snapshots[-1].sent_us - 1
    testimony.snapshots.append(Snapshot("0/99", 0, sent_us, state(2, "processing", 0, 0)))
    assert not found(testimony)


def test_answers_that_cross_each_other_may_come_in_any_order() -> None:
    testimony = told_payment()
    slow = view(7.6, 5, "succeeded", 1000)._replace(sent_us=BEGUN_US + 6 * SECOND)
    testimony.told.append(slow)
    assert not found(testimony)


def test_a_content_that_lost_against_another_on_another_shard_is_known_and_no_contradiction() -> None:
    testimony = told_payment()
    other = {**REQUEST, "amount": 5}
    from tollgate.cli.proof.contents import content_fingerprint

    lost = content_fingerprint(other)
    testimony.conflicts.add(lost)
    testimony.accepted.append(
        Accepted(
            "4/1", 1, is_taken=True, state=state(0, "pending", 0, 0)._replace(amount=5, fingerprint=lost)
        )
    )
    testimony.told.append(posted(0.2, 202, {**shown(0, "pending"), "amount": 5}, other))
    assert not found(testimony)
    testimony.conflicts.clear()
    assert "I5 different" in found(testimony)


def test_what_retention_took_is_not_missed() -> None:
    testimony = told_payment()
    testimony.events = testimony.events[5:]
    testimony.snapshots = []
    look = replace(LOOK, events_from_us=BEGUN_US + 5 * SECOND, statuses_from_us=BEGUN_US + 500 * SECOND)
    tally = Tally()
    judge([testimony], look, tally)
    assert not tally.findings
