"""`tollgate status`: every part of the running stack, and what it all weighs."""

from __future__ import annotations

import json
from functools import reduce
from operator import add
from typing import Annotated, Any

import typer
from rich.console import Console

from tollgate.cli.options import DataDir
from tollgate.local import display, lock
from tollgate.local.paths import choose_data_dir
from tollgate.local.resources import Memory, memory_of
from tollgate.local.run_state import RunState, read_run_state

NOT_RUNNING = 3


def status(
    data_dir: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show part, pid, state, uptime, restarts and memory. Exit code 3 when nothing runs."""
    paths = choose_data_dir(data_dir)
    console = Console()
    state = read_run_state(paths.run_state) if lock.is_held(paths.lock) else None
    if state is None:
        typer.echo('{"running": false}' if as_json else "Not running.")
        raise typer.Exit(NOT_RUNNING)
    memory = {part.name: memory_of(part.pid) if part.pid else Memory(0, 0) for part in state.parts}
    supervisor = memory_of(state.supervisor_pid, descendants=False)
    total = reduce(add, memory.values(), supervisor)
    if as_json:
        typer.echo(json.dumps(_for_programs(state, memory, supervisor, total), indent=2))
        return
    console.print(display.table(state, memory))
    shared = (
        "shared pages counted once" if total.pss is not None else "shared pages counted with each process"
    )
    own, together = display.megabytes(supervisor.fair), display.megabytes(total.fair)
    console.print(f"supervisor {own}; together {together} ({shared})", highlight=False)


def _for_programs(
    state: RunState, memory: dict[str, Memory], supervisor: Memory, total: Memory
) -> dict[str, Any]:
    parts = [part.model_dump(mode="json") | {"memory_bytes": memory[part.name].fair} for part in state.parts]
    return {
        "running": True,
        "ready": state.all_ready,
        "parts": parts,
        "supervisor": {"pid": state.supervisor_pid, "memory_bytes": supervisor.fair},
        "memory_bytes": total.fair,
    }
