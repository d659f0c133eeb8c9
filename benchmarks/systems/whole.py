"""The local stack as a system: `tollgate up` in a folder and on ports of its own, and `tollgate down`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from benchmarks.measure.generator import Target
from benchmarks.systems.builds import ROOT
from benchmarks.systems.system import Running, System
from tollgate.errors import OperationalError
from tollgate.local.stack_json import StackJson, read_stack_json

SHIPPING: Final = "stack: tailer and Kafka on"
EVERYTHING: Final = "stack: everything on"
_COMMAND_TIMEOUT_S: Final = 180.0


@dataclass(frozen=True)
class Stack:
    name: str
    folder: Path
    port: int
    port_base: int
    shards: int
    processors: int
    server: str
    ack: str = "durable"


@contextmanager
def running(stack: Stack) -> Iterator[Running]:
    """Up while the context lasts. Raises OperationalError when it does not come up."""
    try:
        _tollgate(
            stack,
            *("up", "--detach", "--shards", str(stack.shards), "--processors", str(stack.processors)),
            *("--port", str(stack.port), "--port-base", str(stack.port_base)),
        )
        described = read_stack_json(stack.folder / "stack.json")
        if described is None:
            raise OperationalError(f"{stack.folder} holds no stack.json. Read its logs.")
        yield _describe(stack, described)
    finally:
        _tollgate(stack, "down")


def _describe(stack: Stack, described: StackJson) -> Running:
    target = Target(urlsplit(described.base_url).netloc, described.api_key)
    servers = [shard.pid for shard in described.shards]
    servers += [cdc.pid for cdc in described.cdc]
    servers += [processor.pid for processor in described.processors]
    servers += [service.pid for name, service in described.services.items() if name != "nginx"]
    return Running(System(stack.name, target, ()), servers, [described.services["nginx"].pid])


def _tollgate(stack: Stack, *arguments: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "tollgate.cli.main", *arguments, "--data-dir", str(stack.folder)],
        cwd=ROOT,
        env={**os.environ, "TOLLGATE_SHARD__SERVER": stack.server, "TOLLGATE_COMMIT__ACK": stack.ack},
        capture_output=True,
        text=True,
        timeout=_COMMAND_TIMEOUT_S,
    )
    if finished.returncode != 0:
        said = (finished.stderr or finished.stdout).strip()
        raise OperationalError(f"tollgate {arguments[0]} failed: {said}")
