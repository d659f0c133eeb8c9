"""`up`, `down` and what is left, on a stack of the test's own with one shard."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.fixtures.kafka import free_port
from tests.fixtures.stack import RunningStack, new_checkout_id, stack_folder
from tests.fixtures.waiting import is_gone, wait_until
from tollgate.local import lock
from tollgate.local.paths import StackPaths

pytestmark = [pytest.mark.stack, pytest.mark.fault]

_BASE = 17270


@pytest.fixture(scope="module")
def own_stack() -> Iterator[RunningStack]:
    """Not started; brought down at the end, whatever became of it."""
    with stack_folder() as folder:
        stack = RunningStack(StackPaths(folder / "stack"), free_port(), _BASE)
        yield stack
        assert stack.tollgate("down").returncode == 0


def up(stack: RunningStack) -> list[int]:
    started = stack.up("--shards", "1")
    assert started.returncode == 0, f"{started.stdout}{started.stderr}\n{stack.logs()}"
    return stack.processes()


def test_down_leaves_no_process_and_a_later_up_finds_everything_again(own_stack: RunningStack) -> None:
    processes = up(own_stack)
    supervisor = own_stack.state.supervisor_pid
    api_key = own_stack.json.api_key
    checkout_id = new_checkout_id()
    assert own_stack.pay(checkout_id).status == 202
    wait_until(lambda: own_stack.status_of(checkout_id) == "succeeded", "succeeded")

    stopped = own_stack.tollgate("down")

    assert stopped.returncode == 0, stopped.stderr
    assert [pid for pid in (supervisor, *processes) if not is_gone(pid)] == []
    left = own_stack.json
    assert (left.shards, left.cdc, left.processors, left.services) == ((), (), (), {})
    assert left.api_key == api_key
    assert own_stack.tollgate("status").returncode == 3
    assert own_stack.tollgate("down").stdout == "Nothing was running.\n"

    up(own_stack)
    assert own_stack.json.api_key == api_key
    assert own_stack.status_of(checkout_id) == "succeeded"
    assert len(own_stack.effects(checkout_id)) == 1


def test_a_killed_supervisor_leaves_nothing_and_the_next_up_starts_anew(own_stack: RunningStack) -> None:
    up(own_stack)
    processes, supervisor = own_stack.processes(), own_stack.state.supervisor_pid
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: all(map(is_gone, processes)), f"all of {processes} are gone")
    assert not lock.is_held(own_stack.paths.lock)
    up(own_stack)
    own_stack.kill("psp_simulator")
    processes, supervisor = own_stack.processes(), own_stack.state.supervisor_pid
    os.kill(supervisor, signal.SIGKILL)
    assert own_stack.tollgate("down").returncode == 0
    assert [pid for pid in processes if not is_gone(pid)] == []
    assert own_stack.json.services == {}


def test_the_stack_holds_none_of_its_callers_descriptors(own_stack: RunningStack) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    with open(reading, "rb") as pipe:
        ports = ("--port", str(own_stack.port), "--port-base", str(own_stack.port_base))
        folder = ("--data-dir", str(own_stack.paths.data_dir))
        command = (sys.executable, "-m", "tollgate.cli.main", "up", "--detach", *ports, *folder)
        started = subprocess.run(command, stdout=writing, stderr=writing, pass_fds=(writing,), timeout=150)
        os.close(writing)
        printed = pipe.read()  # comes to an end only when nobody holds the other end
    assert started.returncode == 0, printed


def test_a_port_in_use_is_one_sentence_and_starts_nothing() -> None:
    with stack_folder() as folder:
        port = free_port()
        stack = RunningStack(StackPaths(folder / "stack"), port, _BASE + 200)
        with socket.create_server(("127.0.0.1", port)):
            refused = stack.up()
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"tollgate: Port {port}, which nginx needs, is in use by ")
        assert refused.stderr.count("\n") == 1
        assert not stack.paths.stack_json.exists()


def test_without_its_jars_and_a_network_one_sentence_says_so() -> None:
    with stack_folder() as folder:
        nowhere = {
            "TOLLGATE_CACHE": str(folder),
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "https_proxy": "http://127.0.0.1:9",
        }
        stack = RunningStack(StackPaths(folder / "stack"), free_port(), _BASE + 200, nowhere)
        refused = stack.up()
        assert refused.returncode == 1, refused.stdout
        assert "could not be fetched" in refused.stderr
        assert refused.stderr.count("\n") == 1
        assert not lock.is_held(stack.paths.lock)
