"""`tollgate shards add | remove | list`: the ring of the running stack, changed without a refused request."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tollgate.cli.options import DataDir
from tollgate.local import lock
from tollgate.local.control import ask
from tollgate.local.paths import StackPaths, choose_data_dir
from tollgate.local.stack_json import read_stack_json
from tollgate.ring_file import RingFile, read_ring_file

NOT_RUNNING = 3

app = typer.Typer(help="Add, remove and list the shards of the running stack.", no_args_is_help=True)

Patience = Annotated[
    float, typer.Option("--timeout", min=1, help="Seconds to wait; what was begun goes on without us.")
]


@app.command()
def add(data_dir: DataDir = None, timeout: Patience = 600) -> None:
    """Start one more shard and put it on the ring. Returns when nginx sends it its part of the payments."""
    paths = _running(data_dir)
    done = ask(paths.control, {"do": "add"}, _note, timeout)
    typer.echo(f"Shard {done['shard']} is on the ring, at {done['name']}.")


@app.command()
def remove(
    shard: Annotated[int, typer.Argument(metavar="ID", min=0, help="As `tollgate shards list` names it.")],
    data_dir: DataDir = None,
    timeout: Patience = 600,
) -> None:
    """Take a shard off the ring, drain it and stop it. Returns when Postgres has all that it took."""
    paths = _running(data_dir)
    ask(paths.control, {"do": "remove", "shard": shard}, _note, timeout)
    typer.echo(f"Shard {shard} is removed. Postgres has all it took; its data stay in {paths.shard(shard)}.")


@app.command("list")
def list_shards(
    data_dir: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show every shard there ever was: on the ring, joining, leaving, removed."""
    paths = _running(data_dir)
    ring = read_ring_file(paths.ring)
    rows = rows_of(paths, ring)
    if as_json:
        typer.echo(json.dumps({"ring": ring.version, "shards": rows}, indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="dim", title=f"ring {ring.version}")
    headings = ("shard", "state", "pid", "address", "grpc")
    for heading in headings:
        table.add_column(heading)
    for row in rows:
        table.add_row(*("" if row[heading] is None else str(row[heading]) for heading in headings))
    Console().print(table)


def rows_of(paths: StackPaths, ring: RingFile) -> list[dict[str, str | int | None]]:
    stack = read_stack_json(paths.stack_json)
    pids = {shard.id: shard.pid for shard in stack.shards} if stack else {}
    entries = {shard.id: shard for former in reversed(ring.history) for shard in former.shards}
    entries |= {shard.id: shard for shard in ring.running}
    states = dict.fromkeys(ring.retired, "removed") | {shard.id: "on the ring" for shard in ring.shards}
    states |= {shard.id: "joining" for shard in (ring.joining,) if shard}
    states |= {shard.id: "leaving" for shard in (ring.leaving,) if shard}
    return [
        {
            "shard": shard,
            "state": states[shard],
            "pid": pids.get(shard),
            "address": entries[shard].name if shard in entries else None,
            "grpc": entries[shard].grpc if shard in entries else None,
            "data": str(paths.shard(shard)),
        }
        for shard in sorted(states)
    ]


def _running(data_dir: Path | None) -> StackPaths:
    paths = choose_data_dir(data_dir)
    if not lock.is_held(paths.lock):
        sys.stderr.write(f"tollgate: No stack runs in {paths.data_dir}. Start it with `tollgate up`.\n")
        raise typer.Exit(NOT_RUNNING)
    return paths


def _note(note: str) -> None:
    sys.stderr.write(f"{note} …\n")
