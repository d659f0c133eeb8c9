"""`tollgate up`: the whole stack, from packages, ready when the command says so."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from tollgate.cli.options import DataDir
from tollgate.errors import OperationalError, TollgateError
from tollgate.local import display, lock
from tollgate.local.launch import Wishes, launch, shut_down, wait_until_ready
from tollgate.local.paths import StackPaths, choose_data_dir
from tollgate.local.run_state import read_run_state
from tollgate.local.stack_json import StackJson
from tollgate.topics import SHARDS_MAX

_REFRESH_S = 0.5


def up(
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when all is ready; leave it running.")
    ] = False,
    shards: Annotated[
        int | None, typer.Option(min=1, max=SHARDS_MAX, help="Shards of a new data folder. Default: 2.")
    ] = None,
    processors: Annotated[int, typer.Option(min=0, help="Processors; 0 is allowed.")] = 1,
    data_dir: DataDir = None,
    port: Annotated[int | None, typer.Option(help="nginx's port. Default: 8080.")] = None,
    port_base: Annotated[
        int | None,
        typer.Option(envvar="TOLLGATE_PORT_BASE", help="First of the 130 other ports. Default: 7070."),
    ] = None,
    first_payment: Annotated[
        bool, typer.Option("--first-payment", help="Pay once when all is ready, and show how to pay again.")
    ] = False,
) -> None:
    """Start Kafka, Postgres, nginx, shards, cdc, processors and the PSP simulator; keep them running."""
    paths = choose_data_dir(data_dir)
    console = Console()
    began = time.monotonic()
    wishes = Wishes(shards, processors, port, port_base)
    with _stop_signals_interrupt():
        try:
            stack, started = _start(paths, wishes, console, with_caller=not detach)
        except KeyboardInterrupt:
            shut_down(paths)
            console.print("Stopped before it was ready.")
            raise typer.Exit(130) from None
        took = f"Ready in {time.monotonic() - began:.1f} s." if started else "Already running."
        console.print(f"[green]{took}[/green]\n{display.addresses(stack)}", highlight=False, soft_wrap=True)
        if first_payment:
            _pay_first(paths, stack, console)
        if started and not detach:
            _stay(paths, console)


def _pay_first(paths: StackPaths, stack: StackJson, console: Console) -> None:
    """Raises typer.Exit when the payment doesn't succeed; the stack stays."""
    if stack.processors:
        from tollgate.cli.pay import pay  # reads Postgres and the simulator, which `up` alone need not

        pay(data_dir=paths.data_dir)
    else:
        console.print("No processor runs: a payment would be accepted and wait.")
    console.print(
        f"\nPay again:\n{display.curl_line(paths, stack)}", highlight=False, markup=False, soft_wrap=True
    )


def _start(
    paths: StackPaths, wishes: Wishes, console: Console, *, with_caller: bool
) -> tuple[StackJson, bool]:
    launched = launch(paths, wishes, display.jars(console), with_caller=with_caller)
    for note in launched.notes if launched else ():
        sys.stderr.write(f"tollgate: {note}\n")
    try:
        with display.starting(console) as seen:
            return wait_until_ready(paths, seen), launched is not None
    except TollgateError:
        if launched is not None:
            shut_down(paths)  # what doesn't get ready is not left behind half running
        raise


def _stay(paths: StackPaths, console: Console) -> None:
    """Until Ctrl-C. Raises OperationalError when the supervisor ended by itself."""
    console.print("Ctrl-C stops it.", style="dim")
    try:
        with Live(console=console, auto_refresh=False) as live:
            while lock.is_held(paths.lock):
                state = read_run_state(paths.run_state)
                if state is not None and console.is_terminal:
                    live.update(display.table(state), refresh=True)
                time.sleep(_REFRESH_S)
    except KeyboardInterrupt:
        console.print("Stopping …", style="dim")
        shut_down(paths)
        return
    shut_down(paths)
    raise OperationalError(f"The supervisor has ended. Read {paths.log('supervisor')}.")


@contextmanager
def _stop_signals_interrupt() -> Iterator[None]:
    """A closed terminal and SIGTERM end the command as Ctrl-C does: with everything stopped."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
