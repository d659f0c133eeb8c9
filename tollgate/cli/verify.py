"""`tollgate verify`: what clients were told beside the shards, Kafka, Postgres and the PSP's ledger.

Exit 0: they agree; 1: findings; 2: a witness could not be read, so nothing is said.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer
from rich.console import Console
from rich.table import Table

from tollgate.cli.cdc_places import find_places
from tollgate.cli.cdc_progress import shown_progress
from tollgate.cli.options import DataDir
from tollgate.cli.proof.judging import RULES, Tally
from tollgate.cli.proof.leaks import LeakScan, configured_secrets
from tollgate.cli.proof.looking import LOG_SAYS, Witnesses, look_once
from tollgate.cli.proof.recorder import LEAK, UNREADABLE
from tollgate.cli.proof.testimony import Look
from tollgate.client_log import parsed_us
from tollgate.clock import SystemClock, rfc3339
from tollgate.errors import OperationalError, RejectedInput, TollgateError
from tollgate.local.paths import StackPaths, choose_data_dir
from tollgate.local.stack import webhook_secret
from tollgate.local.stack_json import StackJson, read_stack_json

EXIT_FINDINGS: Final = 1
EXIT_UNREAD: Final = 2

SAYS: Final[Mapping[str, str]] = {
    **{rule.name: rule.says for rule in RULES},
    **LOG_SAYS,
    LEAK: "no card number and no secret stands in an answer, a store, a topic, a table or a log",
    UNREADABLE: "every record is what it must be",
}


def verify(
    client_log: Annotated[
        list[Path] | None, typer.Option("--client-log", help="What clients were told; may be given again.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again, until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(min=1, help="Seconds between two looks, with --watch.")] = 30.0,
    settle: Annotated[
        float, typer.Option(min=0, help="Seconds for which a payment that changed counts as under way.")
    ] = 10.0,
    open_for: Annotated[
        float, typer.Option(min=0, help="Seconds that a payment may take; what takes longer is a finding.")
    ] = 300.0,
    since: Annotated[
        str, typer.Option(help="Judge only payments that began at this time (RFC 3339) or later.")
    ] = "",
    limit: Annotated[int, typer.Option(min=0, max=1_000, help="Findings shown of each rule.")] = 3,
    data_dir: DataDir = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, an object a look, and no more.")
    ] = False,
) -> None:
    """Compare what clients were told, the shards, Kafka, Postgres and the PSP's ledger, payment by payment.

    Reads only. Exit code 0: all agree; 1: findings; 2: a witness could not be read.
    """
    console = Console(highlight=False, stderr=as_json)
    code = 0
    try:
        while True:
            try:
                since_us, paths = _since(since), choose_data_dir(data_dir)
                found = _look(paths, tuple(client_log or ()), settle, open_for, since_us, console)
                _show(found, limit, console, as_json=as_json)
                code = EXIT_FINDINGS if code == EXIT_FINDINGS or not found.tally.ok else 0
            except TollgateError as error:
                typer.echo(f"tollgate: {error.message}", err=True)
                code = code or EXIT_UNREAD
            if not watch:
                break
            time.sleep(every)
    except KeyboardInterrupt:
        pass
    if code:
        raise typer.Exit(code)


@dataclass(frozen=True)
class _Found:
    look: Look
    tally: Tally
    duration_s: float


def _look(
    paths: StackPaths,
    client_logs: tuple[Path, ...],
    settle_s: float,
    open_for_s: float,
    since_us: int,
    console: Console,
) -> _Found:
    """Where everything is is asked anew each time: shards come and go."""
    began = time.monotonic()
    stack = read_stack_json(paths.stack_json)
    if stack is None:
        raise OperationalError(
            f"There is no {paths.stack_json}. Start the stack with `tollgate up`, or name its --data-dir."
        )
    look = Look(
        SystemClock().now_us(),
        settle_us=round(settle_s * 1e6),
        open_us=round(open_for_s * 1e6),
        since_us=since_us,
    )
    with shown_progress(console) as progress:
        tally = look_once(witnesses_of(paths, stack, client_logs), look, leak_scan(stack), progress)
    return _Found(look, tally, time.monotonic() - began)


def leak_scan(stack: StackJson) -> LeakScan:
    """Of the secrets that this stack has."""
    own = {"the API key": stack.api_key, "the simulator's webhook secret": webhook_secret(stack.api_key)}
    return LeakScan(own | configured_secrets())


def witnesses_of(paths: StackPaths, stack: StackJson, client_logs: tuple[Path, ...]) -> Witnesses:
    places = find_places(paths.data_dir)
    logs = (*paths.logs.glob("*.log*"), *paths.nginx.rglob("*.log"))
    return Witnesses(
        merchant=stack.merchant,
        postgres_dsn=stack.postgres_dsn,
        kafka_bootstrap=stack.kafka_bootstrap,
        ledger_url=stack.psp_simulator_url,
        shards={place.shard: place.data_dir for place in places.shards},
        fed=frozenset(
            place.shard for place in places.shards if place.ops is not None and not place.is_retired
        ),
        client_logs=client_logs,
        logs=tuple(sorted(path for path in logs if path.is_file())),
    )


def _since(given: str) -> int:
    try:
        return parsed_us(given) if given else 0
    except ValueError:
        raise RejectedInput(f"--since takes an RFC 3339 time, not {given!r}.") from None


def _show(found: _Found, limit: int, console: Console, *, as_json: bool) -> None:
    if as_json:
        typer.echo(orjson.dumps(_for_programs(found, limit)))
    else:
        _print(found, limit, console)


def _for_programs(found: _Found, limit: int) -> dict[str, Any]:
    tally = found.tally
    return {
        "ok": tally.ok,
        "at": rfc3339(found.look.began_us),
        "duration_s": round(found.duration_s, 3),
        "payments": tally.payments,
        "findings": tally.found.total(),
        "rules": {
            name: {
                "says": says,
                "checked": tally.checked[name],
                "found": tally.found[name],
                "first": [{"id": one.id, "detail": one.detail} for one in tally.first(name, limit)],
            }
            for name, says in sorted(SAYS.items())
        },
    }


def _print(found: _Found, limit: int, console: Console) -> None:
    tally = found.tally
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("rule", no_wrap=True)
    table.add_column("what it says")
    table.add_column("checked", justify="right")
    table.add_column("found", justify="right")
    for name, says in sorted(SAYS.items()):
        count = tally.found[name]
        table.add_row(name, says, str(tally.checked[name]), f"[red]{count}[/red]" if count else "0")
    console.print(table)
    for name in sorted(tally.found):
        for finding in tally.first(name, limit):
            console.print(f"[red]{name}[/red] {finding.id}: {finding.detail}", soft_wrap=True)
        if tally.found[name] > limit:
            console.print(f"… {tally.found[name]} of {name} in all; --limit shows more.", style="dim")
    console.print(f"{tally.payments} payments in {found.duration_s:.1f} s.", style="dim")
    if tally.ok:
        console.print("[green]All witnesses agree: nothing lost, nothing double, nothing different.[/green]")
    else:
        console.print(f"[red]{tally.found.total()} findings.[/red]")
