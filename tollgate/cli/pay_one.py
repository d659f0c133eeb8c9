"""Paying once, for a person to watch: every status as it is seen, then every hop with its time."""

from __future__ import annotations

from typing import Any, Final

from rich.console import Console
from rich.table import Table

from tollgate.cli.pay_client import Paid, PayClient, Polling
from tollgate.cli.pay_orders import Order
from tollgate.cli.pay_timeline import Hop, in_order, read_hops, simulator_hops
from tollgate.cli.pay_witnesses import read_ledger
from tollgate.errors import OperationalError
from tollgate.local.stack_json import StackJson
from tollgate.money import format_amount

POLLING: Final = Polling(first_s=0.01, max_s=0.01)


async def pay_and_watch(client: PayClient, order: Order, console: Console) -> tuple[Paid, list[Hop]]:
    """Prints a line a status. The hops are what the client itself saw."""
    body = order.body
    console.print(
        f"Paying [bold]{format_amount(body.amount, body.currency)}[/bold] with {body.payment_method}, "
        f"checkout id {order.checkout_id}"
    )
    seen: list[tuple[float, str]] = []

    def on_status(paid: Paid, after_s: float) -> None:
        answer = "200 replayed" if paid.replayed else "202 accepted"
        what = f"{paid.payment['status']} seen by polling" if seen else f"{answer}, {paid.payment['status']}"
        seen.append((after_s, what))
        console.print(f"  [cyan]{after_s * 1000:9.1f} ms[/cyan]  {what}")

    paid = await client.pay(order, on_status)
    return paid, [
        Hop(paid.sent_at_us, "sent"),
        *(Hop(paid.sent_at_us + round(after_s * 1_000_000), what) for after_s, what in seen),
    ]


async def gather_hops(stack: StackJson, paid: Paid, seen: list[Hop], console: Console) -> list[Hop]:
    """Adds what Postgres and the PSP wrote down; says so when one can't be asked, and does without."""
    checkout_id = paid.order.checkout_id
    hops = list(seen)
    try:
        hops += await read_hops(stack.postgres_dsn, stack.merchant, checkout_id)
        ledger: dict[str, Any] = await read_ledger(stack.psp_simulator_url, seen[0].at_us)
        hops += simulator_hops(ledger, stack.merchant, checkout_id)
    except OperationalError as error:
        console.print(f"[yellow]{error.message} The hops inside are not known.[/yellow]")
    return in_order(hops)


def print_hops(hops: list[Hop], start_us: int, console: Console) -> None:
    table = Table("at ms", "after ms", "hop", "")
    table.columns[0].justify = table.columns[1].justify = "right"
    before_us = start_us
    for hop in hops:
        table.add_row(
            f"{(hop.at_us - start_us) / 1000:.1f}",
            f"{(hop.at_us - before_us) / 1000:.1f}",
            hop.what,
            hop.detail,
        )
        before_us = hop.at_us
    console.print(table)
