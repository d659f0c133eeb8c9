"""The supervisor with real processes: it brings back what dies and leaves nothing, however it ends itself."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.fixtures.small_stack import SmallStack
from tests.fixtures.waiting import is_gone, wait_until
from tollgate.local.run_state import PartStatus

pytestmark = pytest.mark.fault

SLEEPS = "exec sleep 1000"
LEAVES_A_CHILD = "sleep 1000 & echo $! > $FOLDER/child; exec sleep 1000"
# The guardian finds one by its environment alone, the other by its group alone, as nginx's workers.
IN_A_SESSION_OF_ITS_OWN = "setsid sleep 1000 & exec sleep 1000"
WITHOUT_AN_ENVIRONMENT = "env -i sleep 1000 & echo $! > $FOLDER/hidden; exec sleep 1000"
TELLS_THAT_IT_STOPS = "trap 'echo {0} >> $FOLDER/stopped; exit' TERM; while :; do sleep 0.02; done"
STUBBORN = "trap '' TERM; while :; do sleep 0.05; done"
SEED = 20261121

Start = Callable[..., SmallStack]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[SmallStack] = []

    def start_one(**scripts: str) -> SmallStack:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(SmallStack(folder, scripts))
        return started[-1]

    yield start_one
    for stack in started:
        stack.end()


def test_a_killed_part_comes_back_and_what_it_left_behind_is_ended_first(
    start: Start, tmp_path: Path
) -> None:
    stack = start(alpha=LEAVES_A_CHILD, beta=SLEEPS)
    stack.wait_until_ready()
    wait_until(lambda: (tmp_path / "0/child").exists(), "the child has started")
    child = int((tmp_path / "0/child").read_text())
    first, beta = stack.published["alpha"], stack.published["beta"]
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: stack.published["alpha"] != first, "alpha has a new process")
    assert is_gone(child)
    stack.wait_until_ready()
    assert stack.part("alpha").restarts == 1
    assert stack.published["beta"] == beta
    assert psutil.pid_exists(stack.published["alpha"])


def test_a_part_that_ends_at_every_start_is_tried_again_and_again_and_hurts_no_other(start: Start) -> None:
    stack = start(alpha="exit 7", beta=SLEEPS)
    wait_until(lambda: stack.state is not None and stack.part("alpha").restarts >= 4, "four restarts")
    assert stack.part("alpha").detail == "ended with code 7"
    assert stack.part("beta").status is PartStatus.READY
    assert stack.part("beta").restarts == 0


def test_parts_stop_in_order_and_the_last_word_names_no_process(start: Start) -> None:
    names = ("alpha", "beta", "gamma")
    stack = start(**{name: TELLS_THAT_IT_STOPS.format(name) for name in names})
    stack.wait_until_ready()
    everything = stack.everything()
    stack.end()
    assert stack.process.returncode == 0
    assert stack.order_of_stopping() == list(names)
    assert stack.published == {}
    stack.assert_nothing_is_left(everything)


def test_a_part_that_ignores_its_signal_is_killed_after_its_bound(start: Start) -> None:
    stack = start(alpha=STUBBORN, beta=LEAVES_A_CHILD)
    stack.wait_until_ready()
    everything = stack.everything()
    stack.end()
    assert stack.process.returncode == 0
    stack.assert_nothing_is_left(everything)


def test_a_killed_supervisor_leaves_nothing_running(start: Start, tmp_path: Path) -> None:
    stack = start(alpha=WITHOUT_AN_ENVIRONMENT, beta=STUBBORN, gamma=IN_A_SESSION_OF_ITS_OWN)
    stack.wait_until_ready()
    hidden = tmp_path / "0/hidden"
    wait_until(lambda: hidden.exists() and len(stack.everything()) >= 5, "all of them have started")
    everything = {*stack.everything(), int(hidden.read_text())}
    stack.process.kill()
    stack.assert_nothing_is_left(everything)


def test_a_killed_guardian_is_replaced_and_its_successor_knows_every_part(start: Start) -> None:
    stack = start(alpha=SLEEPS, beta=LEAVES_A_CHILD)
    stack.wait_until_ready()
    first = stack.guardian
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: is_gone(first) and _has_guardian(stack), "another guardian")
    everything = stack.everything()
    assert stack.published["alpha"] in everything, "no part was hurt"
    stack.process.kill()
    stack.assert_nothing_is_left(everything)


def test_a_guardian_heeds_no_polite_signal(start: Start) -> None:
    stack = start(alpha=SLEEPS)
    stack.wait_until_ready()
    guardian = stack.guardian
    wait_until(lambda: _ignores(guardian, signal.SIGTERM), "the guardian is up")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(guardian, number)
    os.kill(stack.published["alpha"], signal.SIGKILL)
    wait_until(lambda: stack.part("alpha").restarts == 1, "the supervisor went on")
    assert stack.guardian == guardian


def test_a_supervisor_killed_while_it_starts_its_parts_leaves_nothing(start: Start) -> None:
    rng = random.Random(SEED)
    for _ in range(5):
        stack = start(**{f"part-{n}": LEAVES_A_CHILD for n in range(6)})
        wanted = rng.randint(1, 6)
        _kill_after(stack, wanted)


def _kill_after(stack: SmallStack, parts: int) -> None:
    wait_until(lambda: _started(stack) >= parts, f"{parts} parts have started (seed {SEED})")
    stack.process.kill()
    stack.process.wait()
    wait_until(lambda: not stack.everything(), f"nothing is left (seed {SEED})")


def _has_guardian(stack: SmallStack) -> bool:
    """False between the death of one and the start of the next."""
    try:
        return stack.guardian > 0
    except (AssertionError, psutil.Error):  # the dead one is a zombie for a moment
        return False


def _ignores(pid: int, number: signal.Signals) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    mask = next(line.split()[1] for line in lines if line.startswith("SigIgn:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def _started(stack: SmallStack) -> int:
    return 0 if stack.state is None else sum(part.pid is not None for part in stack.state.parts)
