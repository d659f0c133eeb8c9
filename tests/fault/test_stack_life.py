"""`up`, `down` and what is left, on a stack of the test's own with one shard."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.fixtures.free_port import free_port, free_port_base
from tests.fixtures.stack import RunningStack, new_checkout_id, stack_folder
from tests.fixtures.waiting import is_gone, wait_until
from tollgate.local import lock
from tollgate.local.paths import StackPaths

pytestmark = [pytest.mark.stack, pytest.mark.fault, pytest.mark.timeout(300)]


@contextmanager
def a_stack(**env: str) -> Iterator[RunningStack]:
    """Not started; brought down at the end, whatever became of it."""
    with stack_folder() as folder:
        stack = RunningStack(StackPaths(folder / "stack"), free_port(), free_port_base(), env)
        try:
            yield stack
        finally:
            assert stack.tollgate("down").returncode == 0


@pytest.fixture(scope="module")
def own_stack() -> Iterator[RunningStack]:
    with a_stack() as stack:
        yield stack


def up(stack: RunningStack) -> list[int]:
    started = stack.up("--shards", "1")
    assert started.returncode == 0, f"{started.stdout}{started.stderr}\n{stack.logs()}"
    return stack.processes()


def test_up_detaches_whole_and_down_leaves_nothing_but_the_data(own_stack: RunningStack) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    with open(reading, "rb") as pipe:
        options = ("--port", str(own_stack.port), "--port-base", str(own_stack.port_base), "--shards", "1")
        folder = ("--data-dir", str(own_stack.paths.data_dir))
        command = (sys.executable, "-m", "tollgate.cli.main", "up", "--detach", *options, *folder)
        started = subprocess.run(command, stdout=writing, stderr=writing, pass_fds=(writing,), timeout=150)
        os.close(writing)
        printed = pipe.read()  # comes to an end only when nobody holds the other end
    assert started.returncode == 0, printed
    processes, supervisor = own_stack.processes(), own_stack.state.supervisor_pid
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
    processes, supervisor = up(own_stack), own_stack.state.supervisor_pid
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: all(map(is_gone, processes)), f"all of {processes} are gone")
    assert not lock.is_held(own_stack.paths.lock)

    processes, supervisor = up(own_stack), own_stack.state.supervisor_pid
    own_stack.kill("psp_simulator")
    os.kill(supervisor, signal.SIGKILL)
    assert own_stack.tollgate("down").returncode == 0
    assert [pid for pid in processes if not is_gone(pid)] == []
    assert own_stack.json.services == {}


def test_a_stack_in_the_foreground_ends_with_its_command_even_when_that_is_killed() -> None:
    nowhere = {
        "TOLLGATE_KAFKA_BOOTSTRAP": "127.0.0.1:9",
        "TOLLGATE_POSTGRES_DSN": "postgresql://127.0.0.1:9/",
    }
    with a_stack(**nowhere) as stack:
        options = ("--port", str(stack.port), "--port-base", str(stack.port_base), "--shards", "1")
        folder = ("--processors", "0", "--data-dir", str(stack.paths.data_dir))
        with subprocess.Popen(
            (sys.executable, "-m", "tollgate.cli.main", "up", *options, *folder),
            env={**os.environ, **stack.env},
            stdout=subprocess.DEVNULL,
        ) as command:
            wait_until(lambda: stack.paths.stack_json.exists() and stack.pids != {}, "all have started", 60)
            processes = [*stack.processes(), stack.state.supervisor_pid]
            command.kill()
        wait_until(lambda: all(map(is_gone, processes)), f"all of {processes} are gone", timeout_s=30)
        assert stack.json.processors == ()


def test_services_that_run_elsewhere_are_used_and_not_started(
    kafka_bootstrap: str, postgres_dsn: str
) -> None:
    elsewhere = {"TOLLGATE_KAFKA_BOOTSTRAP": kafka_bootstrap, "TOLLGATE_POSTGRES_DSN": postgres_dsn}
    with a_stack(**elsewhere) as stack:
        up(stack)
        assert set(stack.json.services) == {"nginx", "psp_simulator"}
        assert (stack.json.kafka_bootstrap, stack.json.postgres_dsn) == (kafka_bootstrap, postgres_dsn)
        checkout_id = new_checkout_id()
        assert stack.pay(checkout_id).status == 202
        wait_until(lambda: stack.status_of(checkout_id) == "succeeded", "succeeded")
        assert stack.tollgate("down").returncode == 0


def test_a_port_in_use_is_one_sentence_and_starts_nothing() -> None:
    with a_stack() as stack:
        with socket.create_server(("127.0.0.1", stack.port)):
            refused = stack.up()
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"tollgate: Port {stack.port}, which nginx needs, is in use by ")
        assert refused.stderr.count("\n") == 1
        assert not stack.paths.stack_json.exists()


def test_without_its_jars_and_a_network_one_sentence_says_so() -> None:
    with stack_folder() as folder:
        proxy = "http://127.0.0.1:9"
        env = {"TOLLGATE_CACHE": str(folder), "HTTPS_PROXY": proxy, "https_proxy": proxy}
        with a_stack(**env) as stack:
            refused = stack.up()
            assert refused.returncode == 1, refused.stdout
            assert "could not be fetched" in refused.stderr
            assert refused.stderr.count("\n") == 1
            assert not lock.is_held(stack.paths.lock)
