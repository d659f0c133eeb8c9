"""The whole core on a virtual machine, seed by seed; and the simulation: the same seed, the same trace."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.play import play
from tests.simulation.shrink import shrink, told

STEPS = 1_000
SEEDS = range(50)
_ROOT = Path(__file__).parents[2]
_DIGEST = "from tests.simulation.play import play; print(play(11, 300).digest)"


@pytest.mark.parametrize("seed", SEEDS)
def test_every_promise_holds(seed: int) -> None:
    played = play(seed, STEPS)
    assert played.broken is None, told(shrink(played, runs_max=25))
    assert played.payments > 30
    assert played.virtual_s > 20


def test_the_same_seed_gives_the_same_trace() -> None:
    first, second = play(7, 300), play(7, 300)
    assert first.trace == second.trace
    assert first.digest == second.digest
    assert play(8, 300).digest != first.digest


def test_no_hash_seed_changes_the_trace() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", _DIGEST],
            cwd=_ROOT,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for hash_seed in ("0", "1", "77")
    }
    assert len(digests) == 1
    assert digests == {play(11, 300).digest + "\n"}
