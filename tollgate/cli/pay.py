"""`tollgate pay`: one payment to watch, or many to check. Exit 0: all well; 1: findings; 2: wrong input."""

from __future__ import annotations

import random
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Final

import orjson
import typer
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tollgate.cli.options import DataDir
from tollgate.cli.pay_client import Paid, PayClient, Polling
from tollgate.cli.pay_many import POLLING as MANY_POLLING
from tollgate.cli.pay_many import pay_all, verified_report
from tollgate.cli.pay_one import POLLING as ONE_POLLING
from tollgate.cli.pay_one import gather_hops, pay_and_watch, print_hops
from tollgate.cli.pay_orders import Order, generate_orders, read_orders
from tollgate.cli.pay_report import Report, print_report
from tollgate.client_log import ClientLog
from tollgate.clock import SystemClock
from tollgate.errors import OperationalError, RejectedInput
from tollgate.local.paths import choose_data_dir
from tollgate.local.stack_json import StackJson, read_stack_json

EXIT_FINDINGS: Final = 1
EXIT_INPUT: Final = 2


def pay(
    amount: Annotated[
        int | None, typer.Option(help="Minor units. Without it: 12.34 for one, random amounts for many.")
    ] = None,
    currency: Annotated[str | None, typer.Option(help="ISO 4217; USD by default.")] = None,
    payment_method: Annotated[str | None, typer.Option(help="A PSP token; pm_ok by default.")] = None,
    capture: Annotated[str | None, typer.Option(help="automatic (by default) or manual.")] = None,
    file: Annotated[Path | None, typer.Option(help="Pay every line of a JSONL file.")] = None,
    count: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="Pay this many made-up ones.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=1024, help="At once, with --file and --count.")] = 16,
    seed: Annotated[int | None, typer.Option(help="The same seed makes the same payments and ids.")] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds from first send to end, each.")] = 120.0,
    client_log: Annotated[
        Path | None,
        typer.Option("--client-log", help="Add every answer to this file; see `tollgate verify`."),
    ] = None,
    data_dir: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Pay once and watch every hop; with --file or --count pay many and check each one at both ends."""
    console = Console(highlight=False, stderr=as_json, quiet=as_json)
    rng = random.Random(seed)  # noqa: S311 - made-up ids and amounts; the ids need to differ, not to be secret
    made_up = (amount, currency, payment_method, capture)
    try:
        if file is not None:
            if count is not None or any(option is not None for option in made_up):
                raise RejectedInput(
                    "--file says all there is to pay; leave --count and the payment's options out."
                )
            orders = read_orders(file, rng)
        else:
            orders = generate_orders(
                count or 1,
                rng,
                amount=amount if amount is not None or count else 1234,
                currency="USD" if currency is None else currency,
                payment_method="pm_ok" if payment_method is None else payment_method,
                capture="automatic" if capture is None else capture,
            )
    except RejectedInput as error:
        typer.echo(error.message, err=True)
        raise typer.Exit(EXIT_INPUT) from None
    stack = running_stack(data_dir)
    many = file is not None or count is not None
    runner = _pay_many if many else _pay_one
    with _opened(client_log, stack) as log:
        report = uvloop.run(runner(stack, orders, concurrency, timeout, rng, console, log))
    if as_json:
        typer.echo(orjson.dumps(report.to_json(), option=orjson.OPT_INDENT_2))
    if not report.ok:
        raise typer.Exit(EXIT_FINDINGS)


def running_stack(data_dir: Path | None) -> StackJson:
    path = choose_data_dir(data_dir).stack_json
    stack = read_stack_json(path)
    if stack is None:
        raise OperationalError(
            f"There is no {path}. Start the stack with `tollgate up`, or name its --data-dir."
        )
    if not stack.shards:
        raise OperationalError(f"The stack of {path} is not running. Start it with `tollgate up`.")
    return stack


def _opened(path: Path | None, stack: StackJson) -> AbstractContextManager[ClientLog | None]:
    if path is None:
        return nullcontext()
    from tollgate.cli.verify import leak_scan

    return ClientLog(path, stack.merchant, leak_scan(stack).in_text)


async def _pay_one(
    stack: StackJson,
    orders: list[Order],
    _concurrency: int,
    timeout_s: float,
    rng: random.Random,
    console: Console,
    log: ClientLog | None,
) -> Report:
    async with _client(stack, 1, timeout_s, ONE_POLLING, rng, log) as client:
        started = time.monotonic()
        paid, seen = await pay_and_watch(client, orders[0], console)
        duration_s = time.monotonic() - started
    hops = await gather_hops(stack, paid, seen, console)
    print_hops(hops, paid.sent_at_us, console)
    report = await verified_report(stack, [paid], duration_s)
    for finding in report.findings:
        console.print(f"[red]{finding.problem}: {finding.detail}[/red]")
    if report.ok:
        console.print(
            "[green]In Postgres as told, with exactly the effect it should have at the PSP.[/green]"
        )
    return report


async def _pay_many(
    stack: StackJson,
    orders: list[Order],
    concurrency: int,
    timeout_s: float,
    rng: random.Random,
    console: Console,
    log: ClientLog | None,
) -> Report:
    started = time.monotonic()
    with _progress(console) as progress:
        bar = progress.add_task("paying", total=len(orders), retries=0)
        retries = 0

        def on_paid(paid: Paid) -> None:
            nonlocal retries
            retries += paid.retries
            progress.update(bar, advance=1, retries=retries)

        async with _client(stack, concurrency, timeout_s, MANY_POLLING, rng, log) as client:
            paid = await pay_all(client, orders, concurrency, on_paid)
        duration_s = time.monotonic() - started
        progress.update(bar, description="checking in Postgres and at the PSP")
        report = await verified_report(stack, paid, duration_s)
    print_report(report, console)
    return report


def _client(
    stack: StackJson,
    concurrency: int,
    timeout_s: float,
    polling: Polling,
    rng: random.Random,
    log: ClientLog | None,
) -> PayClient:
    return PayClient(
        stack.base_url,
        stack.api_key,
        concurrency=concurrency,
        timeout_s=timeout_s,
        polling=polling,
        clock=SystemClock(),
        rng=rng,
        log=log,
    )


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[retries]} retries"),
        TimeElapsedColumn(),
        console=console,
    )
