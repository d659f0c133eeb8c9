"""How the stack looks on a terminal: one table, the same while starting, running and asked about."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.status import Status
from rich.table import Table
from rich.text import Text

from tollgate.local.paths import StackPaths
from tollgate.local.resources import Memory
from tollgate.local.run_state import PartState, PartStatus, RunState
from tollgate.local.stack_json import StackJson

_COLOURS = {
    PartStatus.STARTING: "yellow",
    PartStatus.READY: "green",
    PartStatus.UNREADY: "yellow",
    PartStatus.WAITING: "red",
    PartStatus.STOPPING: "yellow",
    PartStatus.STOPPED: "dim",
}


def table(state: RunState, memory: Mapping[str, Memory] | None = None) -> RenderableType:
    """Parts in order of start. With `memory` (part → what it weighs) also that, and its sum."""
    grid = Table(box=None, pad_edge=False, header_style="dim")
    for heading, justify in (("part", "left"), ("pid", "right"), ("state", "left"), ("up", "right")):
        grid.add_column(heading, justify=justify)  # type: ignore[arg-type]
    grid.add_column("restarts", justify="right")
    if memory is not None:
        grid.add_column("memory", justify="right")
    grid.add_column("")
    for part in state.parts:
        cells: list[RenderableType] = [
            part.name,
            str(part.pid or ""),
            _status(part),
            _uptime(part),
            str(part.restarts or ""),
        ]
        if memory is not None:
            cells.append(megabytes(memory[part.name].fair))
        grid.add_row(*cells, Text(part.detail, style="dim"))
    lines: list[RenderableType] = [grid]
    if not state.topics_ready:
        lines.append(Text(f"Kafka's topics: {state.topics_detail or 'not yet'}", style="dim"))
    return Group(*lines)


def addresses(stack: StackJson) -> str:
    return (
        f"payments    {stack.base_url}/v1/payments"
        f"   (merchant {stack.merchant}; its key is api_key in stack.json)\n"
        + "".join(f"shard {shard.id}     {shard.http}\n" for shard in stack.shards)
        + f"simulator   {stack.psp_simulator_url}\n"
        + f"kafka       {stack.kafka_bootstrap}"
    )


def curl_line(paths: StackPaths, stack: StackJson) -> str:
    """To copy. The key is read where it is kept, so that no terminal or log ever shows it."""
    key = f"$(sed -n 's/.*\"api_key\": \"\\(.*\\)\".*/\\1/p' '{paths.stack_json}')"
    return (
        f"curl -i {stack.base_url}/v1/payments"
        f' -H "Authorization: Bearer {key}"'
        ' -H "X-PAYMENT-CHECKOUT-ID: order-$(date +%s)"'
        " -H 'Content-Type: application/json'"
        """ -d '{"amount": 1999, "currency": "EUR", "payment_method": "pm_ok"}'"""
    )


def megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


StateShown = Callable[[RunState], None]
JarsShown = Callable[[int, int], None]


@contextmanager
def starting(console: Console) -> Iterator[StateShown]:
    """Shows a start as it goes on: a live table on a terminal, lines elsewhere."""
    if not console.is_terminal:
        yield PlainLines(console)
        return
    with Live(console=console, refresh_per_second=8, transient=True) as live:

        def show(state: RunState) -> None:
            live.update(table(state))

        yield show


def jars(console: Console) -> JarsShown:
    """Says something only when there is something to fetch."""
    fetching: list[Status] = []

    def show(done: int, total: int) -> None:
        if done == total:
            for status in fetching:
                status.stop()
            return
        message = f"fetching Kafka's jars: {done} of {total}"
        if not fetching:
            fetching.append(console.status(message))
            fetching[0].start()
            if not console.is_terminal:
                console.print(message, highlight=False)
        fetching[0].update(message)

    return show


class PlainLines:
    """One line at each change of a part, where there is no terminal to draw on."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._seen: dict[str, PartStatus] = {}

    def __call__(self, state: RunState) -> None:
        for part in state.parts:
            if part.pid is not None and self._seen.get(part.name) is not part.status:
                self._seen[part.name] = part.status
                detail = f" ({part.detail})" if part.detail else ""
                self._console.print(f"{part.name} {part.status}{detail}", highlight=False, markup=False)


def _status(part: PartState) -> Text:
    return Text(str(part.status), style=_COLOURS[part.status])


def _uptime(part: PartState) -> str:
    if part.started_at is None or part.status in (PartStatus.WAITING, PartStatus.STOPPED):
        return ""
    seconds = max(0, int(time.time() - part.started_at))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
