"""Admission against its oracle: hypothesis for small failures, a seeded campaign for many bodies.

`make fuzz COUNT=1000000` runs as many; TOLLGATE_FUZZ_SEED another course of them.
"""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, note, seed, settings
from hypothesis import strategies as st

from tests.fuzz import bodies
from tests.fuzz.admission_check import check

SEED = int(os.environ.get("TOLLGATE_FUZZ_SEED", "20261121"))
COUNT = int(os.environ.get("TOLLGATE_FUZZ_COUNT", "6000"))
CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())


@seed(SEED)
@settings(max_examples=250, database=None)
@given(st.randoms(use_true_random=False))
def test_admission_and_oracle_agree_on_a_body_that_is_nearly_right(random: Random) -> None:
    checkout_id = bodies.checkout_id(random)
    body = bodies.body(random, checkout_id)
    note(f"{checkout_id!r} {body!r}")
    check(body, checkout_id)


@pytest.mark.timeout(60 + COUNT // 500)
def test_they_agree_on_every_body_of_a_long_campaign() -> None:
    taken = 0
    for number in range(COUNT):
        random = Random(f"{SEED}/{number}")
        checkout_id = bodies.checkout_id(random)
        body = bodies.body(random, checkout_id)
        try:
            taken += check(body, checkout_id)
        except Exception as error:  # whatever it is, this body did it
            raise AssertionError(f"seed {SEED}/{number}: id {checkout_id!r}, body {body!r}") from error
    assert 0.1 < taken / COUNT < 0.6, f"{taken} of {COUNT} were taken: the bodies are no longer nearly right"


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_they_agree_on_every_body_that_was_kept(path: Path) -> None:
    check(path.read_bytes(), "order-0001")
