"""The hops of one payment, as each part wrote them down: the client, Postgres (which knows most), the PSP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tollgate.client_log import parsed_us

_WORDS: Final = {
    "committed": "durable on the shard",
    "shipped": "in Kafka (its time stamp)",
    "ingested": "in Postgres",
    "claimed": "claimed by a processor",
    "sent": "sent to the PSP",
    "answered": "answered by the PSP",
    "decided": "outcome stored",
    "published": "published",
}


@dataclass(frozen=True)
class Hop:
    """Something that happened to the payment; `at_us` since the Unix epoch."""

    at_us: int
    what: str
    detail: str = ""


async def read_hops(dsn: str, merchant: str, checkout_id: str) -> list[Hop]:
    """What Postgres knows. Empty when it doesn't know the payment. Raises OperationalError."""
    from processor.storage.database import open_pool
    from processor.storage.timeline import timeline

    pool = await open_pool(dsn, size_max=1)
    try:
        hops = await timeline(pool, merchant, checkout_id)
    finally:
        await pool.close()
    return [Hop(hop.at_us, _WORDS[hop.step], hop.detail) for hop in hops if hop.step in _WORDS]


def simulator_hops(ledger: dict[str, Any], merchant: str, checkout_id: str) -> list[Hop]:
    """The effects, as the PSP wrote them down."""
    return [
        Hop(parsed_us(effect["at"]), "in the PSP's ledger", effect["type"])
        for effect in ledger["effects"]
        if effect["merchant"] == merchant and effect["checkout_id"] == checkout_id
    ]


def in_order(hops: Sequence[Hop]) -> list[Hop]:
    """By time; hops at the same microsecond stay in the order given."""
    return sorted(hops, key=lambda hop: hop.at_us)
