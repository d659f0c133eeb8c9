"""kill -9 of every part in turn, in the middle of payments: each comes back, nothing is lost or doubled."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

import pytest

from tests.fixtures.stack import RunningStack

pytestmark = [pytest.mark.stack, pytest.mark.fault, pytest.mark.timeout(300)]

SEED = 20261121
PAYMENTS = 300
_RUN_TIMEOUT_S = 150


@dataclass
class Payments:
    """`tollgate pay --count`, once or as often as it takes to be under way whenever something is killed.

    Each run checks at its end that every payment is in Postgres and has its one effect in the PSP's ledger.
    """

    stack: RunningStack
    seeds: Iterator[int] = field(default_factory=lambda: count(SEED))
    run: subprocess.Popen[str] | None = None

    def ensure_under_way(self) -> None:
        if self.run is not None and self.run.poll() is not None:
            self.finish()
        if self.run is None:
            self.run = subprocess.Popen(
                (sys.executable, "-m", "tollgate.cli.main", "pay", *self._options()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, "COLUMNS": "160"},
            )

    def finish(self) -> None:
        assert self.run is not None
        printed, _ = self.run.communicate(timeout=_RUN_TIMEOUT_S)
        assert self.run.returncode == 0, f"seed {SEED}\n{printed}"
        self.run = None

    def _options(self) -> tuple[str, ...]:
        folder = str(self.stack.paths.data_dir)
        seed = str(next(self.seeds))
        return ("--count", str(PAYMENTS), "--concurrency", "16", "--seed", seed, "--data-dir", folder)


@contextmanager
def paying(stack: RunningStack) -> Iterator[Payments]:
    payments = Payments(stack)
    try:
        yield payments
        payments.finish()
    finally:
        if payments.run is not None:
            payments.run.kill()
            payments.run.communicate()


def test_every_part_killed_in_turn_during_a_run_loses_and_doubles_nothing(stack: RunningStack) -> None:
    parts = sorted(stack.pids)
    random.Random(SEED).shuffle(parts)
    assert len(parts) == 9, "two shards, two cdc, a processor and four services"
    with paying(stack) as payments:
        for part in parts:
            payments.ensure_under_way()
            stack.wait_until_back(part, stack.kill(part))
