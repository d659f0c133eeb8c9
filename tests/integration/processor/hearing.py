"""An inbox beside a bench, and what became of the events that it was told."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from asyncpg import Record

from processor.inbox import Inbox, PspWebhooks
from processor.patience import Health
from processor.psp.simulator_webhook import read_simulator_webhook
from tests.fixtures.webhooks import webhook_record
from tests.integration.processor.conftest import Bench
from tollgate.ids import psp_idempotency_key

_IDS = count(1)


def inbox_of(bench: Bench) -> Inbox:
    webhooks = {"simulator": PspWebhooks(read_simulator_webhook, bench.psp.plan)}
    return Inbox(bench.pool, webhooks, bench.clock, Health(), bench.committed.append)


async def told(bench: Bench, *bodies: bytes, event_id: str = "") -> list[str | None]:
    """Receives each body as an event of its own, applies what is due, and returns what became of each."""
    ids = [event_id or f"evt_{next(_IDS)}" for _ in bodies]
    await bench.take_in(*(webhook_record(one, body) for one, body in zip(ids, bodies, strict=True)))
    await apply_all(bench)
    return [(await event(bench, one))["result"] for one in ids]


async def apply_all(bench: Bench) -> None:
    """Until nothing is due."""
    inbox = inbox_of(bench)
    while await inbox.apply_due():
        pass


async def let_waiting_be_due(bench: Bench) -> None:
    """As if the time had come on Postgres' clock."""
    await bench.pool.execute(
        """WITH waiting AS (
            SELECT psp, event_id FROM webhook_inbox WHERE due_at IS NOT NULL FOR UPDATE SKIP LOCKED
        )
        UPDATE webhook_inbox AS w SET due_at = now()
        FROM waiting WHERE w.psp = waiting.psp AND w.event_id = waiting.event_id"""
    )


async def event(bench: Bench, event_id: str) -> Record:
    row = await bench.pool.fetchrow("SELECT * FROM webhook_inbox WHERE event_id = $1", event_id)
    assert row is not None
    return row


async def anomalies(bench: Bench) -> list[str]:
    rows: Sequence[Record] = await bench.pool.fetch("SELECT kind FROM anomalies ORDER BY id")
    return [row["kind"] for row in rows]


def request_key(operation_id: str, step: str, checkout_id: str = "checkout-0001") -> str:
    return psp_idempotency_key("acme", checkout_id, operation_id, step)
