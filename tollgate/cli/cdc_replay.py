"""`tollgate cdc replay`: what the shards still keep, shipped to Kafka once more.

Exit 0: all of it was delivered; 1: it stopped; 2: it was refused, and nothing was sent.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Final

import typer
from rich.console import Console

from tollgate.cli.cdc_places import Places, ShardOption, find_places, opened_logs
from tollgate.cli.cdc_progress import shown_progress
from tollgate.cli.options import DataDir
from tollgate.errors import RejectedInput

EXIT_REFUSED: Final = 2


def replay(
    shard: ShardOption = None,
    first: Annotated[
        int | None, typer.Option("--from", min=1, help="First sequence. Default: the oldest that is kept.")
    ] = None,
    last: Annotated[
        int | None, typer.Option("--to", min=1, help="Last sequence. Default: the newest acknowledged.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Ship changes again that were delivered before. Harmless: intake knows each of them.

    Needs neither the shard nor its tailer, and moves no cursor. Exit code 0: all delivered; 1: it stopped,
    run it again; 2: refused.
    """
    console = Console(highlight=False)
    try:
        delivered = _replay(find_places(data_dir), shard, first, last, console)
    except RejectedInput as error:
        typer.echo(f"tollgate: {error.message}", err=True)
        raise typer.Exit(EXIT_REFUSED) from None
    console.print(f"{delivered} changes shipped again. Intake takes none of them a second time.")


def _replay(places: Places, shard: int | None, first: int | None, last: int | None, console: Console) -> int:
    from cdc.publisher import PublisherPolicy
    from cdc.replay import replay, span_of

    chosen = places.of(shard)
    if len(chosen) > 1 and (first, last) != (None, None):
        raise RejectedInput("Sequences are a shard's own: name it with --shard beside --from and --to.")
    delivered = 0
    with opened_logs(chosen) as logs, shown_progress(console) as progress:
        spans = [(log, span_of(log.look_until_seen(), first, last)) for log in logs]
        for place, (log, span) in zip(chosen, spans, strict=True):
            policy = PublisherPolicy(
                bootstrap=places.kafka_bootstrap,
                shard=place.shard,
                in_flight_records_max=20_000,
                in_flight_kib_max=32 * 1024,
                linger_ms=5,
            )
            name = f"shard {place.shard}, {span.first} to {span.last}"
            show = partial(_show, progress, name, span.size)
            delivered += replay(log, span, policy.producer_config(), show)
    return delivered


def _show(progress: Callable[[str, int, int], None], name: str, total: int, done: int) -> None:
    progress(name, done, total)
