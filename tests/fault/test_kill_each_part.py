"""kill -9 of every part in turn, in the middle of a run of payments: each comes back, nothing is lost or
doubled.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest

from tests.fixtures.stack import RunningStack

pytestmark = [pytest.mark.stack, pytest.mark.fault, pytest.mark.timeout(300)]

SEED = 20261121
PAYMENTS = 300


def test_every_part_killed_in_turn_during_a_run_loses_and_doubles_nothing(stack: RunningStack) -> None:
    parts = sorted(stack.pids)
    random.Random(SEED).shuffle(parts)
    print(f"seed {SEED}: {parts}")  # noqa: T201 - shown when the test fails
    pay = (sys.executable, "-m", "tollgate.cli.main", "pay", "--data-dir", str(stack.paths.data_dir))
    with subprocess.Popen(
        (*pay, "--count", str(PAYMENTS), "--concurrency", "16", "--seed", str(SEED)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "160"},
    ) as run:
        killed_during_the_run = 0
        for part in parts:
            killed_during_the_run += run.poll() is None
            stack.wait_until_back(part, stack.kill(part))
        printed, _ = run.communicate(timeout=200)
    assert run.returncode == 0, printed
    assert killed_during_the_run >= 4, "the run lasted while parts were killed"
