"""The time of every hop of one payment, for a person who asks where it went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from processor.storage.database import Pool, translated

_STEPS: Final = """
SELECT 'accepted' AS step, created_at AS at, '' AS detail
FROM payments WHERE merchant = $1 AND checkout_id = $2
UNION ALL
SELECT hop.step, hop.at, 'shard ' || shard FROM payment_shards,
    LATERAL (VALUES ('committed', committed_at), ('shipped', shipped_at), ('ingested', ingested_at))
        AS hop (step, at)
WHERE merchant = $1 AND checkout_id = $2
UNION ALL
SELECT hop.step, hop.at, CASE WHEN hop.step = 'decided' THEN id || ': ' || status ELSE id END
FROM operations, LATERAL (VALUES ('claimed', claimed_at), ('decided', decided_at)) AS hop (step, at)
WHERE merchant = $1 AND checkout_id = $2
UNION ALL
SELECT hop.step, hop.at, operation_id || ' attempt ' || number || hop.said
FROM attempts, LATERAL (VALUES
        ('sent', sent_at, ''),
        ('answered', answered_at, ': ' || outcome || CASE WHEN late THEN ', late' ELSE '' END)
    ) AS hop (step, at, said)
WHERE merchant = $1 AND checkout_id = $2
UNION ALL
SELECT 'webhook', applied_at, psp || ' ' || event_id || ': ' || result
FROM webhook_inbox WHERE merchant = $1 AND checkout_id = $2
UNION ALL
SELECT 'published', published_at, told.detail
FROM outbox, LATERAL (VALUES
        (true, 'version ' || version || ', ' || event_type),
        (with_acceptance, 'version 1, tollgate.payment.pending')
    ) AS told (holds, detail)
WHERE told.holds AND merchant = $1 AND checkout_id = $2
"""

# What one pass of the relay published stands under one time, by its versions.
_TIMELINE: Final = f"""
SELECT step, at, detail FROM ({_STEPS}) AS steps WHERE at IS NOT NULL
ORDER BY at, CASE WHEN step = 'published' THEN detail END
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Hop:
    """`step`: accepted, committed, shipped, ingested, claimed, sent, answered, webhook, decided or
    published.
    """

    step: str
    at_us: int
    detail: str


async def timeline(pool: Pool, merchant: str, checkout_id: str) -> list[Hop]:
    """Oldest first; empty when Postgres doesn't know the payment. Each hop is on its own part's clock."""
    with translated("reading the timeline"):
        rows = await pool.fetch(_TIMELINE, merchant, checkout_id)
    return [Hop(row["step"], row["at"], row["detail"]) for row in rows]
