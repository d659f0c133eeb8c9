"""The load tests check themselves: shoppers on the whole stack, and every answer compared at the end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.stack import RunningStack
from tollgate.client_log import read_client_log

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]
ROOT = Path(__file__).resolve().parents[2]
SEED = 20_261_128


def run(stack: RunningStack, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
    home = {"TOLLGATE_HOME": str(stack.paths.data_dir)}
    return subprocess.run(
        (sys.executable, "-m", *command),
        env={**os.environ, **home, **env},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_shoppers_find_nothing_wrong_and_neither_does_verify(stack: RunningStack, tmp_path: Path) -> None:
    told = tmp_path / "told.jsonl"
    locust = ("locust", "-f", "benchmarks/load/locustfile.py", "--headless", "--only-summary")
    size = ("--users", "8", "--spawn-rate", "8", "--run-time", "4s", "--stop-timeout", "120")
    ended = run(stack, *locust, *size, LOAD_LOG=str(told), LOAD_SEED=str(SEED), LOAD_MAY_REFUSE="1")
    assert ended.returncode == 0, f"seed {SEED}\n{ended.stdout}\n{ended.stderr}"
    assert "All witnesses agree" in ended.stdout
    answers = list(read_client_log(told))
    assert {one.status for one in answers} >= {200, 202}
    assert {one.method for one in answers} == {"GET", "POST"}


def test_a_day_at_its_rate_for_a_moment(stack: RunningStack, tmp_path: Path) -> None:
    told = tmp_path / "told.jsonl"
    size = ("--minutes", "0.05", "--seed", str(SEED), "--may-refuse")
    ended = run(stack, "benchmarks.load.day", *size, "--client-log", str(told))
    assert ended.returncode == 0, f"seed {SEED}\n{ended.stdout}\n{ended.stderr}"
    assert "0 failures" in ended.stdout
    assert "All witnesses agree" in ended.stdout
    posts = {one.checkout_id for one in read_client_log(told) if one.method == "POST"}
    assert len(posts) == 35  # a million a day, in three seconds
