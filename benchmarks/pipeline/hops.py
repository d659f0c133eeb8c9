"""Where the payments of one run are, and how long each took from hop to hop, as Postgres has it.

Every time is its own part's clock; on one machine they are one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg

PERCENTS: Final = (50.0, 90.0, 99.0, 99.9)

# One payment, one operation, and of its attempts the last. An open payment has no `decided`.
_OF_EACH: Final = """
SELECT payments.created_at, shards.committed_at, shards.shipped_at, shards.ingested_at, operations.claimed_at,
       attempts.sent_at, attempts.answered_at, operations.decided_at, outbox.published_at
FROM payments
JOIN payment_shards AS shards USING (merchant, checkout_id)
JOIN operations USING (merchant, checkout_id)
LEFT JOIN LATERAL (
    SELECT sent_at, answered_at FROM attempts
    WHERE (attempts.merchant, attempts.checkout_id) = (payments.merchant, payments.checkout_id)
    ORDER BY sent_at DESC LIMIT 1
) AS attempts ON true
LEFT JOIN LATERAL (
    SELECT published_at FROM outbox
    WHERE (outbox.merchant, outbox.checkout_id) = (payments.merchant, payments.checkout_id)
    ORDER BY outbox.version DESC LIMIT 1
) AS outbox ON true
WHERE payments.created_at >= to_timestamp($1)
"""
_STANDING: Final = """
SELECT count(*) AS ingested, count(*) FILTER (WHERE status = 'succeeded') AS succeeded,
       count(*) FILTER (WHERE status NOT IN ('pending', 'processing', 'succeeded')) AS otherwise
FROM payments WHERE created_at >= to_timestamp($1)
"""
HOPS: Final = (
    "durable on the shard",
    "in Kafka",
    "in Postgres",
    "claimed",
    "sent to the PSP",
    "answered",
    "outcome stored",
    "published",
)
WHOLE: Final = "accept to terminal"


@dataclass(frozen=True)
class Standing:
    ingested: int
    succeeded: int
    otherwise: int


@dataclass(frozen=True)
class Spread:
    """Milliseconds, ascending."""

    values: Sequence[float]

    def percentile(self, percent: float) -> float:
        return self.values[min(len(self.values) - 1, int(len(self.values) * percent / 100))]

    def document(self) -> dict[str, float]:
        shown = {f"p{percent:g}": round(self.percentile(percent), 2) for percent in PERCENTS}
        return shown | {"max": round(self.values[-1], 2)}


async def standing(connection: asyncpg.Connection, since: float) -> Standing:
    """Of the payments accepted since then (seconds of the Unix epoch)."""
    row = await connection.fetchrow(_STANDING, since)
    assert row is not None
    return Standing(row["ingested"], row["succeeded"], row["otherwise"])


async def hops(connection: asyncpg.Connection, since: float) -> dict[str, Spread]:
    """By hop, the time since the one before; and `WHOLE`. Of payments that went all the way."""
    rows = await connection.fetch(_OF_EACH, since)
    spans: dict[str, list[float]] = {name: [] for name in (*HOPS, WHOLE)}
    for row in rows:
        times = list(row)
        if None in times:
            continue
        for name, before, after in zip(HOPS, times, times[1:], strict=False):
            spans[name].append((after - before).total_seconds() * 1e3)
        spans[WHOLE].append((times[-2] - times[0]).total_seconds() * 1e3)
    return {name: Spread(sorted(values)) for name, values in spans.items() if values}
