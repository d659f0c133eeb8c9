"""A stack of its own for a storm: `tollgate up` as a user has it, each Python part with a disk, a clock and
sockets that can be made to fail.

Nothing of it is known to the production code: `site/sitecustomize.py` preloads the shim into the parts, and
the shim leads their connections over wires that this process carries.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fault.storm.plan import PROCESSORS, SHARDS
from tests.fault.storm.wires import Wire
from tests.fixtures.faulty_disk import FaultyDisk, built_shim
from tests.fixtures.free_port import free_port, free_port_base
from tests.fixtures.stack import RunningStack
from tollgate.local.paths import StackPaths
from tollgate.local.ports import PortPlan

LEASE_S: Final = 5.0
_SITE: Final = Path(__file__).with_name("site")
_SHARDS_EVER: Final = 16  # ids of shards that join during a storm

# Bounds in the order of the defaults, short enough that a storm of minutes goes beyond each of them.
_SETTINGS: Final = {
    "TOLLGATE_PROCESSOR__LEASE_S": f"{LEASE_S:g}",
    "TOLLGATE_PSP__SIMULATOR__TIMEOUT_S": "2",
    "TOLLGATE_WATCHDOG__STALLED_S": "1",
    "TOLLGATE_WATCHDOG__LINGER_S": "2",
}


@dataclass(frozen=True)
class Stage:
    """`disks` are by part, shards that may yet join among them; `wires` by name, "processor-0>postgres"."""

    stack: RunningStack
    disks: Mapping[str, FaultyDisk]
    wires: Mapping[str, Wire]


@asynccontextmanager
async def stage(
    folder: Path, *, budget: float | None = None, tree: Path | None = None
) -> AsyncIterator[Stage]:
    """Up and ready. `budget` is in calls to the PSP a second, over all processors; `tree` holds other sources
    of the parts than this checkout's, see `mutated`.

    The stack is ended and its data kept; `folder` must be one that other users may enter.
    """
    paths = StackPaths(folder / "stack")
    parts = folder / "parts"
    parts.mkdir()
    ports = PortPlan(free_port_base(), free_port())
    wires = _wires(ports)
    disks = await asyncio.to_thread(_disks, paths, parts)
    for part, disk in disks.items():
        own = [wire for wire in wires.values() if wire.name.startswith(f"{part}>")]
        led = {"TOLLGATE_SHIM_CONNECT": ",".join(f"{wire.server_port}={wire.port}" for wire in own)}
        (parts / f"{part}.json").write_text(json.dumps(disk.environment | led))
    sources = [str(_SITE), *([str(tree)] if tree else [])]
    environment = _SETTINGS | {"STORM_PARTS": str(parts), "PYTHONPATH": os.pathsep.join(sources)}
    if budget is not None:
        environment["TOLLGATE_PSP__SIMULATOR__MAX_PER_SECOND"] = f"{budget:g}"
    running = RunningStack(paths, ports.http, ports.base, environment)
    try:
        for wire in wires.values():
            await wire.open()
        up = await asyncio.to_thread(running.up, "--shards", str(SHARDS), "--processors", str(PROCESSORS))
        assert up.returncode == 0, f"{up.stdout}{up.stderr}\n{running.logs()}"
        yield Stage(running, disks, wires)
    finally:
        await asyncio.to_thread(running.tollgate, "down")
        for wire in wires.values():
            await wire.close()


def _wires(ports: PortPlan) -> dict[str, Wire]:
    ends = {"kafka": ports.kafka, "postgres": ports.postgres, "psp": ports.simulator}
    made = [Wire(f"processor-{n}>{end}", port) for n in range(PROCESSORS) for end, port in ends.items()]
    made += [Wire(f"cdc-{shard}>kafka", ports.kafka) for shard in range(SHARDS)]
    made += [
        Wire(f"shard-{shard}>ledger-{n}", ports.processor_grpc(n))
        for shard in range(SHARDS)
        for n in range(PROCESSORS)
    ]
    return {wire.name: wire for wire in made}


def _disks(paths: StackPaths, parts: Path) -> dict[str, FaultyDisk]:
    shim = built_shim(parts)
    roots = {f"shard-{shard}": paths.shard(shard) for shard in range(_SHARDS_EVER)}
    nowhere = parts / "no disk of these fails"
    roots |= {f"cdc-{shard}": nowhere for shard in range(_SHARDS_EVER)}
    roots |= {f"processor-{number}": nowhere for number in range(PROCESSORS)}
    disks = {}
    for part, root in roots.items():
        own = parts / part
        own.mkdir()
        disks[part] = FaultyDisk(shim, own, root)
    return disks
