"""`tollgate cdc status`: how far each shard's changes have come to Kafka.

Needs neither the shard nor its cdc process: what the store and the watermark say is there without them.
Exit 0: all is well; 1: a tailer is halted or down, or a store can't be read.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tollgate.cli.cdc_places import ShardOption, ShardPlace, find_places, opened_logs
from tollgate.cli.options import DataDir
from tollgate.clock import SystemClock
from tollgate.errors import RejectedInput, TollgateError

if TYPE_CHECKING:
    from cdc.shard_status import ShardStatus

EXIT_UNWELL: Final = 1
EXIT_INPUT: Final = 2
_COLOURS: Final = {
    "caught up": "green",
    "shipping": "green",
    "waiting": "yellow",
    "halted": "red",
    "down": "red",
    "retired": "dim",
}


def status(
    shard: ShardOption = None,
    data_dir: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show each shard's lag, cursor, epoch and why a tailer stands still. Exit code 1 when one does."""
    from cdc.shard_status import NEEDS_A_PERSON

    try:
        places = find_places(data_dir).of(shard)
    except RejectedInput as error:
        typer.echo(f"tollgate: {error.message}", err=True)
        raise typer.Exit(EXIT_INPUT) from None
    seen = [(place, _look_at(place)) for place in places]
    if as_json:
        typer.echo(orjson.dumps([_for_programs(*one) for one in seen], option=orjson.OPT_INDENT_2))
    else:
        _print(seen, Console(highlight=False))
    if any(isinstance(found, str) or found.state in NEEDS_A_PERSON for _place, found in seen):
        raise typer.Exit(EXIT_UNWELL)


def _look_at(place: ShardPlace) -> ShardStatus | str:
    """Or why it can't be known."""
    from cdc.shard_status import look_at
    from cdc.tailer_probe import probe

    tailer = probe(place.ops) if place.ops is not None else None
    try:
        with opened_logs((place,)) as logs:
            return look_at(logs[0], tailer, SystemClock(), is_retired=place.is_retired)
    except TollgateError as error:
        return error.message


def _for_programs(place: ShardPlace, found: ShardStatus | str) -> dict[str, Any]:
    if isinstance(found, str):
        return {"shard": place.shard, "state": "unreadable", "reason": found}
    log, tailer = found.log, found.tailer
    return {
        "shard": log.shard,
        "state": found.state,
        "reason": found.reason or None,
        "incarnation": log.identity.incarnation.hex(),
        "epoch": log.identity.epoch,
        "watermark": log.watermark.sequence if log.watermark is not None else None,
        "durable": log.durable,
        "acknowledged": log.acknowledged,
        "pruned": log.pruned,
        "lag": asdict(found.lag),
        "tailer": tailer._asdict() if tailer is not None else None,
    }


def _print(seen: list[tuple[ShardPlace, ShardStatus | str]], console: Console) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("shard", justify="right")
    table.add_column("tailer")
    for heading in ("lag", "bytes", "seconds", "durable", "acknowledged", "in flight", "pruned to", "epoch"):
        table.add_column(heading, justify="right")
    table.add_column("incarnation")
    for place, found in seen:
        if isinstance(found, str):
            table.add_row(str(place.shard), Text("unreadable", style="red"))
            continue
        log, lag = found.log, found.lag
        table.add_row(
            str(log.shard),
            Text(found.state, style=_COLOURS[found.state]),
            *map(str, (lag.records, lag.bytes, f"{lag.seconds:.1f}", log.durable, log.acknowledged)),
            str(found.tailer.in_flight) if found.tailer is not None else "–",
            *map(str, (log.pruned, log.identity.epoch)),
            log.identity.incarnation.hex()[:8],
        )
    console.print(table)
    for place, found in seen:
        if reason := found if isinstance(found, str) else found.reason:
            console.print(f"shard {place.shard}: {reason}", soft_wrap=True, markup=False)
