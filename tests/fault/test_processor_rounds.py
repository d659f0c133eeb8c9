"""A fault at a step of the pipeline, under payments, captures, cancels and refunds: exactly one effect each.

The fixed part of the default run; `make processor-rounds` plays as many as asked for.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.fault.effects.plan import DECK, Fault, Moment, Phase, Plan, Step, When, plan_of
from tests.fault.effects.purchases import Effect, Purchase, purchases
from tests.fault.effects.rig import effects_rig
from tests.fault.effects.witness import problems_in_ledger

SEED = 20276568
ROUNDS = 8
UNHEARD = (1, 2450)  # seed and number of a round in which the answers of calls are lost
TOO_MANY = r"too many at the PSP: Effect\(.*type='charge'"


@pytest.mark.fault
@pytest.mark.timeout(300)
def test_every_effect_is_there_once_whatever_fails_at_whatever_step(tmp_path: Path) -> None:
    plans = [plan_of(SEED, number) for number in range(ROUNDS)]
    assert {plan.moment.step for plan in plans} == set(Step)
    assert {plan.phase for plan in plans} == set(Phase)
    with effects_rig(tmp_path, processors=2) as rig:
        rounds = [rig.play(SEED, number) for number in range(ROUNDS)]
    assert sum(played.calls["unheard"] + played.calls["late"] for played in rounds) > 0, (
        "nothing was in doubt"
    )


@pytest.mark.fault
@pytest.mark.timeout(180)
def test_a_processor_that_really_charges_twice_fails_its_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its adapter sends a payment without an answer once more, under a fresh key: only the PSP's ledger shows
    that, as the payment succeeds and everything else agrees.
    """
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "effects/charging_twice"))
    assert plan_of(*UNHEARD) == Plan(Fault.CUT, Moment(Step.CALL, When.AFTER), Phase.PAYMENTS, 1)
    with effects_rig(tmp_path, processors=1) as rig, pytest.raises(AssertionError, match=TOO_MANY):
        rig.play(*UNHEARD)


def test_a_campaign_meets_every_fault_at_every_moment_before_any_again() -> None:
    dealt = [plan_of(1, number) for number in range(2 * len(DECK))]
    assert set(Counter((plan.fault, plan.moment) for plan in dealt).values()) == {2}
    assert dealt == [plan_of(1, number) for number in range(2 * len(DECK))]
    assert dealt[: len(DECK)] != dealt[len(DECK) :]


def test_every_plan_has_calls_or_commits_enough_to_meet_its_moment() -> None:
    bought = purchases("run", 0)
    fewest = {phase: sum(len(purchase.asks(phase)) for purchase in bought) for phase in Phase}
    fewest[Phase.PAYMENTS] = len(bought)
    plans = [plan_of(7, number) for number in range(2 * len(DECK))]
    assert all(plan.passing < fewest[plan.phase] for plan in plans)
    assert {plan.phase for plan in plans if plan.moment.step is Step.INTAKE} == {Phase.PAYMENTS}
    assert Phase.PAYMENTS not in {plan.phase for plan in plans if plan.moment.step is Step.REQUEST}
    assert str(Plan(Fault.KILL, DECK[0][1], Phase.REFUNDS)) == "kill before intake of refunds"


def ledger_of(effects: list[Effect]) -> dict[str, list[dict[str, object]]]:
    return {"effects": [effect._asdict() for effect in effects]}


def test_a_second_effect_a_missing_one_and_a_wrong_amount_are_found() -> None:
    bought = purchases("run", 2)
    for purchase in bought:
        name_operations(purchase)
    effects = [effect for purchase in bought for effect in purchase.effects()]
    assert len({effect.idempotency_key for effect in effects}) == len(effects) == 25
    assert problems_in_ledger(ledger_of(effects), "run", bought) == []
    other = Effect("another", "charge", "another-run-01", 5)
    assert problems_in_ledger(ledger_of([*effects, other]), "run", bought) == []
    (doubled,) = problems_in_ledger(ledger_of([*effects, effects[0]]), "run", bought)
    assert doubled.startswith("1 too many at the PSP")
    (under_another_key,) = problems_in_ledger(
        ledger_of([*effects, effects[0]._replace(idempotency_key="b")]), "run", bought
    )
    assert under_another_key.startswith("1 too many at the PSP")
    (missing,) = problems_in_ledger(ledger_of(effects[1:]), "run", bought)
    assert missing.startswith("missing at the PSP")
    assert (
        len(problems_in_ledger(ledger_of([effects[0]._replace(amount=1), *effects[1:]]), "run", bought)) == 2
    )


def name_operations(purchase: Purchase) -> None:
    for phase in Phase:
        for asked in purchase.asks(phase):
            purchase.operation_ids[asked.client_key] = f"op_{asked.client_key}"
