"""What each payment method and each knob does, as data."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tollgate.local.simulator.behaviour import Behaviour, Delivery, behaviour_of
from tollgate.local.simulator.scenario import Director


@pytest.mark.parametrize(
    ("payment_method", "behaviour"),
    [
        ("pm_ok", Behaviour()),
        ("pm_declined", Behaviour(decline_code="insufficient_funds")),
        ("pm_slow_1500", Behaviour(delay_ms=1500)),
        ("pm_unavailable_3", Behaviour(unavailable_times=3)),
        ("pm_lost", Behaviour(first_delivery=Delivery.LOST)),
        ("pm_reset", Behaviour(first_delivery=Delivery.RESET)),
        ("pm_slow_", Behaviour()),
        ("pm_slow_-1", Behaviour()),
        ("pm_slow_5\n", Behaviour()),
        ("7cda23ab-a898-43c3-bfc3-0c0258646313", Behaviour()),
    ],
)
def test_a_payment_method_means_what_the_table_says(payment_method: str, behaviour: Behaviour) -> None:
    assert behaviour_of(payment_method) == behaviour


@given(st.text())
def test_every_payment_method_means_something(payment_method: str) -> None:
    behaviour_of(payment_method)


def test_a_scenario_is_merged_into_what_is_set() -> None:
    director = Director(random.Random(1))
    director.merge(b'{"latency_ms": 20, "down": true}')
    merged = director.merge(b'{"error_rate": 0.5, "down": false}')
    assert merged.model_dump() == {
        "latency_ms": 20,
        "error_rate": 0.5,
        "lost_answer_rate": 0,
        "reset_rate": 0,
        "down": False,
    }


@pytest.mark.parametrize("raw", [b'{"latency": 1}', b'{"error_rate": 1.5}', b'{"down": 1}', b"[]", b"", b"{"])
def test_a_wrong_scenario_changes_nothing(raw: bytes) -> None:
    director = Director(random.Random(1))
    before = director.merge(b'{"reset_rate": 0.25}')
    with pytest.raises(ValidationError):
        director.merge(raw)
    assert director.scenario == before


def test_every_second_error_has_its_effect() -> None:
    director = Director(random.Random(1))
    director.merge(b'{"error_rate": 1}')
    fates = [director.fate() for _ in range(6)]
    assert all(fate.delivery is Delivery.ERROR for fate in fates)
    assert [fate.executes for fate in fates] == [False, True] * 3


def test_the_rates_are_shares_of_all_calls() -> None:
    director = Director(random.Random(7))
    director.merge(b'{"error_rate": 0.1, "lost_answer_rate": 0.2, "reset_rate": 0.3}')
    deliveries = Counter(director.fate().delivery for _ in range(20_000))
    shares = {delivery: round(count / 20_000, 1) for delivery, count in deliveries.items()}
    assert shares == {Delivery.ERROR: 0.1, Delivery.LOST: 0.2, Delivery.RESET: 0.3, Delivery.ANSWER: 0.4}
