"""Paying many: some at a time, each from its POST to its end; then every one is checked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from tollgate.cli.pay_client import Paid, PayClient, Polling
from tollgate.cli.pay_orders import Order
from tollgate.cli.pay_report import Report, make_report
from tollgate.cli.pay_witnesses import executing_effects, read_ledger, read_rows
from tollgate.cli.verify_payments import check_payments
from tollgate.client_log import parsed_us
from tollgate.local.stack_json import StackJson

# A run of many polls gently: the answers to "not yet" would take the cores that the payments need.
POLLING: Final = Polling(first_s=0.02, growth=1.5, max_s=0.5)


async def pay_all(
    client: PayClient, orders: Sequence[Order], concurrency: int, on_paid: Callable[[Paid], None]
) -> list[Paid]:
    """In the order of `orders`; `on_paid` as each comes to its end."""
    paid: list[Paid | None] = [None] * len(orders)
    todo = iter(enumerate(orders))

    async def work() -> None:
        for place, order in todo:
            done = paid[place] = await client.pay(order, lambda _paid, _after_s: None)
            on_paid(done)

    async with asyncio.TaskGroup() as workers:
        for _ in range(min(concurrency, len(orders))):
            workers.create_task(work())
    return [one for one in paid if one is not None]


async def verified_report(stack: StackJson, paid: Sequence[Paid], duration_s: float) -> Report:
    """Raises OperationalError when a witness can't be read."""
    since_us = min(_first_seen_us(one) for one in paid)
    ids = [one.order.checkout_id for one in paid]
    rows = await read_rows(stack.postgres_dsn, stack.merchant, ids)
    effects = executing_effects(await read_ledger(stack.psp_simulator_url, since_us), stack.merchant)
    return make_report(paid, duration_s, check_payments(paid, rows, effects))


def _first_seen_us(paid: Paid) -> int:
    """A replay was paid long before it was sent again."""
    created_at = paid.payment.get("created_at")
    return paid.sent_at_us if created_at is None else min(paid.sent_at_us, parsed_us(created_at))
