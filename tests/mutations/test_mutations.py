"""The simulation finds deliberate bugs; `make mutations` hunts all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutations.__main__ import hunt_apart
from tests.mutations.mutants import BY_NAME, MUTANTS

_ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "name", ["silence-is-a-no", "report-jumps-the-gap", "ack-before-fsync", "fail-in-doubt"]
)
def test_the_simulation_finds_it(name: str) -> None:
    found = hunt_apart(name, range(6), 1_000)
    assert found["rule"] is not None, f"{name}: {BY_NAME[name].breaks} is no longer watched"


def test_every_mutant_still_fits_the_code() -> None:
    for mutant in MUTANTS:
        source = (_ROOT / mutant.module.replace(".", "/")).with_suffix(".py").read_text()
        assert source.count(mutant.old) == 1, f"{mutant.name} no longer fits {mutant.module}"
