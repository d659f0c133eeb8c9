"""What the PSP's ledger, Postgres and Kafka say after a round, held against what was wanted."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import asyncpg
from confluent_kafka import Consumer, TopicPartition

from tests.fault.effects.plan import Phase
from tests.fault.effects.purchases import Effect, Purchase, Standing
from tollgate import topics
from tollgate.status import PENDING, is_legal
from tollgate.v1.payment_pb2 import Payment

_READ_S: Final = 60.0

_STANDING: Final = """
SELECT checkout_id, status, captured_amount, refunded_amount FROM payments WHERE starts_with(checkout_id, $1)
"""
# An operation of the payment itself stays pending while the payment is authorized; nothing else may.
_AT_WORK: Final = """
SELECT (SELECT count(*) FROM operations AS o JOIN payments AS p USING (merchant, checkout_id)
        WHERE o.status = 'pending' AND (o.type <> 'payment' OR p.status <> 'authorized'))
     + (SELECT count(*) FROM outbox WHERE published_at IS NULL)
     + (SELECT count(*) FROM status_resends)
"""
_WRONG: Final = """
SELECT 'parked: ' || checkout_id || ' ' || id || ' ' || parked_reason FROM operations
WHERE parked_reason IS NOT NULL
UNION ALL SELECT 'failed: ' || checkout_id || ' ' || id || ' ' || failure_code FROM operations
WHERE status = 'failed' AND failure_code <> 'insufficient_funds' AND type <> 'payment'
UNION ALL SELECT 'anomaly: ' || checkout_id || ' ' || kind FROM anomalies
UNION ALL SELECT 'conflict: ' || checkout_id FROM payment_conflicts
UNION ALL SELECT 'dead letter: ' || error FROM dead_letters
"""
_VERSIONS: Final = """
SELECT checkout_id, with_acceptance, snapshot FROM outbox WHERE starts_with(checkout_id, $1) ORDER BY id
"""
_CALLS: Final = """
SELECT count(*) AS made, count(*) FILTER (WHERE number > 1) AS again,
    count(*) FILTER (WHERE outcome IS NULL) AS unheard, count(*) FILTER (WHERE late) AS late
FROM attempts WHERE starts_with(checkout_id, $1)
"""


async def is_at_rest(
    postgres: asyncpg.Connection[asyncpg.Record], run: str, wanted: Sequence[Purchase], after: Phase
) -> bool:
    """Everything stands as it must after that phase, nothing is under way and all is told."""
    rows = await postgres.fetch(_STANDING, run)
    found = {row["checkout_id"]: Standing(*list(row)[1:]) for row in rows}
    if found != {purchase.checkout_id: purchase.standing(after) for purchase in wanted}:
        return False
    return bool(await postgres.fetchval(_AT_WORK) == 0)


async def not_as_wanted(
    postgres: asyncpg.Connection[asyncpg.Record], run: str, wanted: Sequence[Purchase]
) -> str:
    """Why a round doesn't come to rest."""
    rows = await postgres.fetch(_STANDING, run)
    found = {row["checkout_id"]: Standing(*list(row)[1:]) for row in rows}
    differing = [
        f"{purchase.checkout_id} ({purchase.wish}) is {found.get(purchase.checkout_id)}"
        for purchase in wanted
        if found.get(purchase.checkout_id) != purchase.standing(Phase.REFUNDS)
    ]
    wrong = [row[0] for row in await postgres.fetch(_WRONG)]
    return "; ".join([*differing, *wrong, f"{await postgres.fetchval(_AT_WORK)} at work"])


async def problems_in_postgres(postgres: asyncpg.Connection[asyncpg.Record], run: str) -> list[str]:
    """Nothing parked, failed, contradicted or set aside, ever; every version follows legally."""
    found = [row[0] for row in await postgres.fetch(_WRONG)]
    snapshots: dict[str, list[Payment]] = {}
    for row in await postgres.fetch(_VERSIONS, run):
        versions = snapshots.setdefault(row["checkout_id"], [])
        if row["with_acceptance"]:
            versions.append(Payment(status=PENDING, version=1))
        versions.append(Payment.FromString(row["snapshot"]))
    for checkout_id, versions in snapshots.items():
        if [payment.version for payment in versions] != list(range(1, len(versions) + 1)):
            found.append(f"{checkout_id} has versions {[payment.version for payment in versions]}")
        found += [
            f"{checkout_id} went from {before.status} to {after.status}"
            for before, after in pairwise(versions)
            if before.status != after.status and not is_legal(before.status, after.status)
        ]
    return found


async def calls_of(postgres: asyncpg.Connection[asyncpg.Record], run: str) -> dict[str, int]:
    row = await postgres.fetchrow(_CALLS, run)
    assert row is not None
    return dict(row)


async def versions_of(postgres: asyncpg.Connection[asyncpg.Record], run: str) -> dict[str, int]:
    """The last version of each payment, by its key in Kafka."""
    rows = await postgres.fetch(
        "SELECT merchant, checkout_id, version FROM payments WHERE starts_with(checkout_id, $1)", run
    )
    return {f"{row['merchant']}/{row['checkout_id']}": row["version"] for row in rows}


def problems_in_ledger(ledger: dict[str, Any], run: str, wanted: Sequence[Purchase]) -> list[str]:
    """Each effect that was wanted is there once, and no other."""
    found = Counter(
        Effect(*(row[name] for name in Effect._fields))
        for row in ledger["effects"]
        if row["checkout_id"].startswith(run)
    )
    expected = sum((purchase.effects() for purchase in wanted), Counter[Effect]())
    return [f"{count} too many at the PSP: {effect}" for effect, count in (found - expected).items()] + [
        f"missing at the PSP: {effect}" for effect in expected - found
    ]


class Told:
    """Reads payments.events on from where it was; the DLQ too, in which nothing may be."""

    def __init__(self, bootstrap: str) -> None:
        self._consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "witness"})
        partitions = self._consumer.list_topics(topics.EVENTS, timeout=_READ_S).topics[topics.EVENTS]
        places = [TopicPartition(topics.EVENTS, number, 0) for number in partitions.partitions]
        self._consumer.assign([*places, TopicPartition(topics.DLQ, 0, 0)])

    def close(self) -> None:
        self._consumer.close()

    def problems(self, versions: dict[str, int]) -> list[str]:
        """Every version of these payments is told, in order; one that is told again counts once."""
        seen: dict[str, list[int]] = {key: [] for key in versions}
        missing = sum(versions.values())
        deadline = time.monotonic() + _READ_S
        while missing > 0 and time.monotonic() < deadline:
            message = self._consumer.poll(1.0)
            if message is None or message.error() is not None:
                continue
            key = str(message.key(), "utf-8")  # type: ignore[arg-type]
            if message.topic() == topics.DLQ:
                return [f"{key} is in {topics.DLQ}"]
            headers = {str(header[0]): header[1] for header in message.headers() or ()}
            version = int(headers["ce_version"])  # type: ignore[arg-type]
            if key in seen and version not in seen[key]:
                seen[key].append(version)
                missing -= 1
        return [
            f"of {key} the versions {told} were told, of {versions[key]}"
            for key, told in seen.items()
            if told != list(range(1, versions[key] + 1))
        ]
