"""`tollgate cdc verify`: every change of a shard's log beside its record in Kafka.

Exit 0: all is as it should be; 1: findings; 2: it couldn't be checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import orjson
import typer
from rich.console import Console
from rich.table import Table

from tollgate.cli.cdc_places import Places, ShardOption, find_places, opened_logs
from tollgate.cli.cdc_progress import shown_progress
from tollgate.cli.options import DataDir
from tollgate.errors import OperationalError, TollgateError

if TYPE_CHECKING:
    from cdc.verification import ShardVerdict, Verification

EXIT_FINDINGS: Final = 1
EXIT_UNCHECKED: Final = 2


def verify(
    shard: ShardOption = None,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait until all that is durable now is shipped.")
    ] = 0.0,
    limit: Annotated[int, typer.Option(min=0, max=1_000, help="Findings shown of each problem.")] = 20,
    data_dir: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Compare the shards' logs with Kafka: missing, different, out of order. Repeats are allowed.

    Reads only: the stack may run, or be down but for Kafka. What is not shipped yet is lag and no finding.
    Exit code 0: all well; 1: findings; 2: it couldn't be checked.
    """
    console = Console(highlight=False, stderr=as_json)
    try:
        verification = _verify(find_places(data_dir), shard, wait, console)
    except TollgateError as error:
        typer.echo(f"tollgate: {error.message}", err=True)
        raise typer.Exit(EXIT_UNCHECKED) from None
    if as_json:
        typer.echo(orjson.dumps(_for_programs(verification, limit), option=orjson.OPT_INDENT_2))
    else:
        _print(verification, limit, console)
    if not verification.ok:
        raise typer.Exit(EXIT_FINDINGS)


def _verify(places: Places, shard: int | None, wait_s: float, console: Console) -> Verification:
    from cdc.change_topic import KafkaChangeTopic
    from cdc.verification import verify, wait_until_shipped

    with opened_logs(places.of(shard)) as logs:
        if wait_s and (behind := wait_until_shipped(logs, wait_s)):
            raise OperationalError(
                "Not everything is shipped after "
                f"{wait_s:g} s: "
                + ", ".join(f"shard {one.shard} by {one.durable - one.acknowledged}" for one in behind)
                + ". Look at `tollgate cdc status`, or leave --wait out to compare what is."
            )
        with shown_progress(console) as progress:
            return verify(logs, KafkaChangeTopic(places.kafka_bootstrap), progress)


def _for_programs(verification: Verification, limit: int) -> dict[str, Any]:
    return {
        "ok": verification.ok,
        "records": verification.records,
        "foreign_records": verification.foreign,
        "duration_s": round(verification.duration_s, 3),
        "shards": [_shard_for_programs(shard, limit) for shard in verification.shards],
    }


def _shard_for_programs(verdict: ShardVerdict, limit: int) -> dict[str, Any]:
    facts, tally = verdict.facts, verdict.tally
    return {
        "shard": facts.shard,
        "ok": verdict.ok,
        "incarnation": facts.identity.incarnation.hex(),
        "epoch": facts.identity.epoch,
        "pruned": facts.pruned,
        "acknowledged": facts.acknowledged,
        "durable": facts.durable,
        "compared": tally.compared,
        "records": tally.records,
        "repeats": tally.repeats,
        "below_floor": tally.below_floor,
        "expired": tally.expired,
        "unshipped": tally.unshipped,
        "problems": dict(tally.problems),
        "findings": [finding._asdict() for finding in tally.first(limit)],
    }


def _print(verification: Verification, limit: int, console: Console) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("shard", "epoch", "compared", "records", "repeats", "unshipped", "pruned", "expired"):
        table.add_column(heading, justify="right")
    table.add_column("findings", justify="right")
    for verdict in verification.shards:
        facts, tally = verdict.facts, verdict.tally
        numbers = (facts.shard, facts.identity.epoch, tally.compared, tally.records, tally.repeats)
        rest = (tally.unshipped, tally.below_floor, tally.expired, tally.problems.total())
        table.add_row(*map(str, (*numbers, *rest)))
    console.print(table)
    for verdict in verification.shards:
        _print_findings(verdict, limit, console)
    rate = verification.records / verification.duration_s if verification.duration_s else 0
    console.print(
        f"{verification.records} records read in {verification.duration_s:.1f} s ({rate:.0f}/s), "
        f"{verification.foreign} of them of other stores.",
        style="dim",
    )
    if verification.ok:
        console.print(
            "[green]Every change that was acknowledged is in Kafka, as it was written and in order.[/green]"
        )


def _print_findings(verdict: ShardVerdict, limit: int, console: Console) -> None:
    for finding in verdict.tally.first(limit):
        console.print(
            f"[red]{finding.problem}[/red] shard {verdict.facts.shard}, change {finding.sequence}, "
            f"{finding.key or 'id unknown'}: {finding.detail}",
            soft_wrap=True,
        )
    for problem, count in verdict.tally.problems.items():
        if count > limit:
            console.print(f"… {count} {problem} in all; --limit shows more.")
