"""`tollgate dlq`: what intake has set aside, why, and back to intake with it.

Exit 0: done; 1: it could not be done, or only in part; 2: it was refused, and nothing was sent.
"""

from __future__ import annotations

import asyncio
import getpass
import socket
import sys
from collections import Counter
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from tollgate.cli.cdc_progress import shown_progress
from tollgate.cli.dlq_letters import find_letter, read_dead, with_values
from tollgate.cli.dlq_show import describe
from tollgate.cli.options import DataDir
from tollgate.cli.services import Services, find_services
from tollgate.clock import rfc3339
from tollgate.errors import RejectedInput

EXIT_REFUSED: Final = 2
_KEY_SHOWN: Final = 60

app = typer.Typer(
    help="The dead letter queue: changes that failed by their content, and those parked behind them.",
    no_args_is_help=True,
)

Filters = Annotated[
    list[str] | None,
    typer.Option(
        "--filter", help="key=, error=, origin= or state= with a shell pattern. Repeated: all must match."
    ),
]


@app.command("list")
def list_letters(
    filters: Filters = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 100,
    taken_in: Annotated[bool, typer.Option("--all", help="Those too that were taken in since.")] = False,
    data_dir: DataDir = None,
) -> None:
    """What is in the dead letter queue, oldest first within a partition, and how each stands."""
    from processor.redrive import State, parse_filter

    console = Console(highlight=False)
    wanted = [parse_filter(text) for text in filters or ()]
    with shown_progress(console) as progress:
        dead = asyncio.run(read_dead(find_services(data_dir), progress))
    shown = [
        one
        for one in dead
        if (taken_in or one.state is not State.TAKEN_IN) and all(each.matches(one) for each in wanted)
    ]
    table = Table("origin", "key", "state", "replays", "since", "error", box=None, pad_edge=False)
    for one in shown[:limit]:
        key = one.letter.key.decode(errors="replace")
        table.add_row(
            str(one.letter.origin),
            key if len(key) <= _KEY_SHOWN else f"{key[:_KEY_SHOWN]}…",
            one.state.value,
            str(one.replays),
            rfc3339(one.letter.at_ms * 1000),
            one.letter.error,
        )
    if shown:
        console.print(table)
    counts = Counter(one.state.value for one in shown)
    beyond = f"; {len(shown) - limit} more with --limit" if len(shown) > limit else ""
    said = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "nothing"
    console.print(f"{said}{beyond}")


@app.command()
def show(
    origin: Annotated[str, typer.Argument(help="As `list` shows it: topic/partition/offset.")],
    raw: Annotated[bool, typer.Option("--raw", help="The value's bytes, and nothing else.")] = False,
    data_dir: DataDir = None,
) -> None:
    """One letter: why it failed, its headers, and what of its content can be read."""
    found = asyncio.run(find_letter(find_services(data_dir), origin))
    if raw:
        sys.stdout.buffer.write(found.letter.value)
        return
    for line in describe(found):
        typer.echo(line)


@app.command()
def redrive(
    filters: Filters = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 1000,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and send nothing.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Those too that were delivered and that intake has not had yet.")
    ] = False,
    replays_max: Annotated[
        int, typer.Option("--replays-max", min=1, help="Not those that were redriven so often already.")
    ] = 5,
    data_dir: DataDir = None,
) -> None:
    """Send letters back to intake, with the bytes they had. What was paid is not paid again.

    Interrupted, it is run again: what it had sent is not sent twice, and what it may have sent is named.
    """
    console = Console(highlight=False)
    try:
        asyncio.run(
            _redrive(
                find_services(data_dir),
                filters or [],
                limit,
                replays_max,
                console,
                again=again,
                dry_run=dry_run,
            )
        )
    except RejectedInput as error:
        typer.echo(f"tollgate: {error.message}", err=True)
        raise typer.Exit(EXIT_REFUSED) from None


async def _redrive(
    services: Services,
    filters: list[str],
    limit: int,
    replays_max: int,
    console: Console,
    *,
    again: bool,
    dry_run: bool,
) -> None:
    from processor.kafka.producer import Publisher
    from processor.redrive import parse_filter, plan_redrive, redrive
    from processor.storage.dead_letters import only_redrive

    wanted = [parse_filter(text) for text in filters]
    async with only_redrive(services.postgres_dsn) as connection:
        with shown_progress(console) as progress:
            dead = await read_dead(services, progress)
            plan = plan_redrive(dead, wanted, limit, again=again, replays_max=replays_max)
            for reason, count in sorted(plan.skipped.items()):
                console.print(f"{count} stay: {reason}.")
            for one in plan.in_doubt:
                console.print(
                    f"{one.letter.origin} was under way when redrive {one.redrive} was interrupted: it may "
                    "reach intake twice, which stores it once."
                )
            if dry_run or not plan.chosen:
                console.print(f"{len(plan.chosen)} would go." if dry_run else "Nothing goes.")
                return
            chosen = await with_values(services, plan.chosen)
            publisher = Publisher(services.kafka_bootstrap)
            try:
                number = await redrive(
                    connection,
                    publisher,
                    chosen,
                    f"{getpass.getuser()}@{socket.gethostname()}",
                    " ".join(filters),
                    lambda done, of: progress("redriven", done, of),
                )
            finally:
                await asyncio.to_thread(publisher.close)
    console.print(
        f"Redrive {number}: {len(chosen)} went back to intake. `tollgate dlq list` shows what came of it."
    )
