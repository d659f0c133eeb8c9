"""Starting and ending a stack from outside: what `tollgate up` and `tollgate down` do before and after the
supervisor.

The lock is taken first and handed to the supervisor, so two `up` at once can't both start one. Everything
that can be known to go wrong is found before anything is started, and said in one sentence.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from tollgate.errors import ConfigurationError, OperationalError
from tollgate.local import guardian, lock
from tollgate.local.kafka_jars import ensure_jars
from tollgate.local.paths import StackPaths
from tollgate.local.ports import BASE, HTTP, PortPlan, base_of_shard, check_counts, check_free
from tollgate.local.run_state import PartStatus, RunState, read_run_state
from tollgate.local.stack import StackSettings, build_parts, describe, needed_ports, new_ring
from tollgate.local.stack_json import StackJson, api_key_of, read_stack_json, write_stack_json
from tollgate.nginx_settings import address_limits
from tollgate.ring_file import RingFile, read_ring_file, write_ring_file

DISK_FREE_MIN: Final = 200 * 1024 * 1024
READY_TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 25.0
# With the pauses between them this many deaths take some 10 s; a part that was never ready by then won't be.
_DEATHS_BEFORE_READY_MAX: Final = 8
_SAME_START_S: Final = 30.0  # a pid noted a moment after its start is not another process of that number
_POLL_S: Final = 0.05

JarProgress = Callable[[int, int], None]
StateSeen = Callable[[RunState], None]


@dataclass(frozen=True)
class Wishes:
    """What the caller asked for; None where it didn't."""

    shards: int | None = None
    processors: int = 1
    port: int | None = None
    port_base: int | None = None


@dataclass(frozen=True)
class Launched:
    """`notes` are sentences about wishes that could not be met as asked."""

    process: subprocess.Popen[bytes]
    notes: tuple[str, ...]


def launch(paths: StackPaths, wishes: Wishes, progress: JarProgress, *, with_caller: bool) -> Launched | None:
    """Starts the supervisor; None when one runs already. `with_caller`: it stops when the caller's process
    ends.

    Raises ConfigurationError and OperationalError, each one sentence, with nothing left running.
    """
    _make_data_dir(paths)
    descriptor = lock.acquire(paths.lock)
    if descriptor is None:
        return None
    try:
        end_leftovers(paths)
        ring, ports, notes = plan(paths, wishes)
        settings = StackSettings(
            paths=paths,
            ports=ports,
            processors=wishes.processors,
            kafka_bootstrap=os.environ.get("TOLLGATE_KAFKA_BOOTSTRAP") or None,
            postgres_dsn=os.environ.get("TOLLGATE_POSTGRES_DSN") or None,
            limits=address_limits(),
        )
        check_free(needed_ports(settings, ring))
        api_key = api_key_of(paths.stack_json)
        build_parts(settings, ring, api_key)  # says what is not installed, or can't be run by this user
        if settings.kafka_bootstrap is None:
            ensure_jars(progress=progress)
        if not paths.ring.exists():
            write_ring_file(paths.ring, ring)
        write_stack_json(paths.stack_json, describe(settings, ring, api_key, {}))
        paths.run_state.unlink(missing_ok=True)
        return Launched(_start_supervisor(settings, descriptor, with_caller=with_caller), notes)
    finally:
        os.close(descriptor)  # the supervisor holds it now, or nobody


def wait_until_ready(paths: StackPaths, seen: StateSeen, timeout_s: float = READY_TIMEOUT_S) -> StackJson:
    """Calls `seen` with every state read. Raises OperationalError when the stack doesn't get ready."""
    deadline = time.monotonic() + timeout_s
    while True:
        state = read_run_state(paths.run_state)
        if state is not None:
            seen(state)
            stack = read_stack_json(paths.stack_json)
            if state.all_ready and stack is not None and stack.services:
                return stack
        if not lock.is_held(paths.lock):
            raise OperationalError(
                f"The supervisor ended before all was ready. Read {paths.log('supervisor')}."
            )
        if reason := why_hopeless(state, timed_out=time.monotonic() > deadline, timeout_s=timeout_s):
            raise OperationalError(reason)
        time.sleep(_POLL_S)


def why_hopeless(state: RunState | None, *, timed_out: bool, timeout_s: float) -> str | None:
    """One sentence when waiting on makes no sense; None while it does. Pure."""
    for part in state.parts if state else []:
        if not part.was_ready and part.restarts >= _DEATHS_BEFORE_READY_MAX:
            return f"{part.name} {part.detail or 'ends'} at every start. Read {part.log}."
    if not timed_out:
        return None
    waited = f"within {timeout_s:g} s"
    for part in state.parts if state else []:
        if part.status is not PartStatus.READY:
            return f"{part.name} was not ready {waited}. Read {part.log}."
    return f"Kafka's topics were not ready {waited}. {state.topics_detail if state else ''}".strip()


def shut_down(paths: StackPaths) -> bool:
    """Ends the stack and whatever a killed supervisor left. False when nothing ran. Returns when all is gone.

    Raises OperationalError when something can't be ended.
    """
    deadline = time.monotonic() + STOP_TIMEOUT_S
    ran = lock.is_held(paths.lock)
    told = None
    while lock.is_held(paths.lock):
        supervisor = lock.holder(paths.lock)
        if supervisor is not None and supervisor != told:
            _signal(supervisor, signal.SIGTERM)
            told = supervisor
        if time.monotonic() > deadline:
            if supervisor is None:
                raise OperationalError(f"Another command holds {paths.lock}. Try again when it has ended.")
            _signal(supervisor, signal.SIGKILL)  # its guardian ends the rest
        time.sleep(_POLL_S)
    left = end_leftovers(paths)
    return ran or left


def end_leftovers(paths: StackPaths) -> bool:
    """Kills what the supervisor's last run left, if anything; stack.json then names no process. True if so.

    Call only when no supervisor runs.
    """
    state = read_run_state(paths.run_state)
    if state is None:
        return False
    groups = [
        part.pid for part in state.parts if part.pid is not None and _is_ours(part.pid, part.started_at)
    ]
    left = any(map(_group_exists, groups)) or bool(guardian.processes_of_run(state.run_id))
    guardian.end_run(state.run_id, groups)
    _wait_gone(groups)
    stack = read_stack_json(paths.stack_json)
    if stack is not None and stack.services:
        write_stack_json(paths.stack_json, stack.without_processes())
    paths.run_state.unlink(missing_ok=True)
    return left


def _is_ours(leader: int, started_at: float | None) -> bool:
    """Whether the group that `leader` led is still the part's: a pid can have been given to another since."""
    try:
        created = psutil.Process(leader).create_time()
    except psutil.NoSuchProcess:
        return True  # at most its group is left, and no other process can be given that number meanwhile
    return started_at is not None and abs(created - started_at) < _SAME_START_S


def _group_exists(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _wait_gone(leaders: list[int]) -> None:
    alive = []
    for leader in leaders:
        with suppress(psutil.NoSuchProcess):
            alive.append(psutil.Process(leader))
    _gone, left = psutil.wait_procs(alive, timeout=5)
    if still := [process.pid for process in left if process.status() != psutil.STATUS_ZOMBIE]:
        raise OperationalError(f"The processes {still} don't end. End them by hand and try again.")


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    except PermissionError:
        raise OperationalError(
            f"The stack's supervisor (pid {pid}) belongs to another user. Stop it as that user."
        ) from None


def _make_data_dir(paths: StackPaths) -> None:
    try:
        paths.logs.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(paths.data_dir).free
        (paths.data_dir / ".writable").touch()
        (paths.data_dir / ".writable").unlink()
    except OSError as error:
        raise ConfigurationError(
            f"The data folder {paths.data_dir} can't be written ({error.strerror}). "
            "Choose another one with --data-dir."
        ) from None
    if free < DISK_FREE_MIN:
        raise ConfigurationError(
            f"Only {free // 2**20} MB are free under {paths.data_dir}, of {DISK_FREE_MIN // 2**20} MB needed "
            "at least. Free some, or choose another folder with --data-dir."
        )


def plan(paths: StackPaths, wishes: Wishes) -> tuple[RingFile, PortPlan, tuple[str, ...]]:
    """A data folder that has a ring keeps it: shards are named by it for ever."""
    port = HTTP if wishes.port is None else wishes.port
    if not paths.ring.exists():
        ports = PortPlan(BASE if wishes.port_base is None else wishes.port_base, port)
        shards = 2 if wishes.shards is None else wishes.shards
        check_counts(shards, wishes.processors)
        return new_ring(ports, shards), ports, ()
    ring = read_ring_file(paths.ring)
    base = base_of_shard(ring.shards[0].name, ring.shards[0].id)
    if wishes.port_base not in (None, base):
        raise ConfigurationError(
            f"The shards in {paths.data_dir} are named by ports from base {base} on, for ever. "
            f"Use --port-base {base}, or another --data-dir."
        )
    check_counts(len(ring.running), wishes.processors)
    notes: tuple[str, ...] = ()
    if wishes.shards not in (None, len(ring.shards)):
        notes = (
            f"{paths.data_dir} has {len(ring.shards)} shards and keeps them; --shards counts only for a new "
            "data folder. Shards are added and removed with `tollgate shards`.",
        )
    return ring, PortPlan(base, port), notes


def _start_supervisor(
    settings: StackSettings, lock_descriptor: int, *, with_caller: bool
) -> subprocess.Popen[bytes]:
    """In a session of its own, with none of this process's descriptors but the lock."""
    argv = [sys.executable, "-P", "-m", "tollgate.local"]
    argv += ["--data-dir", str(settings.paths.data_dir), "--processors", str(settings.processors)]
    argv += ["--port", str(settings.ports.http), "--port-base", str(settings.ports.base)]
    argv += ["--lock-fd", str(lock_descriptor)]
    if with_caller:
        argv += ["--starter", str(os.getpid())]
    with settings.paths.log("supervisor").open("ab") as log:
        return subprocess.Popen(
            argv,
            cwd=settings.paths.data_dir,
            env={**os.environ, **_absolute_config()},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(lock_descriptor,),
            start_new_session=True,
        )


def _absolute_config() -> dict[str, str]:
    """Parts run in the data folder: a relative TOLLGATE_CONFIG would mean another file there."""
    config = os.environ.get("TOLLGATE_CONFIG")
    return {"TOLLGATE_CONFIG": str(Path(config).absolute())} if config else {}
