"""What waits, as the processors show it: on a real Postgres, with real doubt, parking and webhooks."""

from __future__ import annotations

import math

import asyncpg
import pytest

from processor import metrics
from processor.gauges import WaitingGauges
from processor.storage.database import connect
from tests.fixtures.changes import accepted_payment, change_record
from tests.fixtures.webhooks import webhook_record
from tests.integration.processor.asking import drain
from tests.integration.processor.conftest import Bench

LEASE_S = 15.0


def shown() -> tuple[float, float, float, float]:
    gauges = (metrics.WEBHOOKS_WAITING, metrics.PARKED_NOW, metrics.IN_DOUBT, metrics.IN_DOUBT_OLDEST)
    webhooks, parked, in_doubt, oldest = (gauge._value.get() for gauge in gauges)
    return webhooks, parked, in_doubt, oldest


@pytest.fixture
async def session(migrated_dsn: str) -> asyncpg.Connection[asyncpg.Record]:
    return await connect(migrated_dsn)


async def test_doubt_is_counted_from_its_first_call_until_somebody_heard_of_it(
    bench: Bench, session: asyncpg.Connection[asyncpg.Record]
) -> None:
    gauges = WaitingGauges("", bench.clock, LEASE_S)
    bench.psp.script.extend(["lose", "refuse"])  # no answer; then one without effect, which settles nothing
    await bench.take_in(change_record(accepted_payment()))
    await bench.take_in(change_record(accepted_payment("checkout-0002")))
    await bench.run_due()
    await gauges.look(session)
    assert shown() == (0, 0, 1, 0), "a refusal is no doubt"
    bench.clock.advance(40)
    await gauges.look(session)
    assert shown() == (0, 0, 1, 40)
    said = metrics.IN_DOUBT_ALARMS._value.get()
    for advance, alarms in ((859, 0), (1, 1), (899, 1), (1, 2)):
        bench.clock.advance(advance)
        await gauges.look(session)
        assert metrics.IN_DOUBT_ALARMS._value.get() == said + alarms, (
            "at a quarter of an hour, and each after it"
        )
    await bench.let_leases_end()
    await drain(bench)
    await gauges.look(session)
    assert shown() == (0, 0, 0, 0)
    await session.close()


async def test_a_call_is_in_doubt_when_its_lease_is_over_and_not_before(
    bench: Bench, session: asyncpg.Connection[asyncpg.Record]
) -> None:
    gauges = WaitingGauges("", bench.clock, LEASE_S)
    bench.psp.script.append("lose")
    await bench.take_in(change_record(accepted_payment()))
    await bench.run_due()
    await session.execute("UPDATE attempts SET outcome = NULL, answered_at = NULL, evidence = NULL")
    await gauges.look(session)
    assert shown()[2] == 0
    bench.clock.advance(LEASE_S + 1)
    await gauges.look(session)
    assert shown()[2:] == (1, LEASE_S + 1)
    await session.close()


async def test_webhooks_without_a_payment_and_parked_operations_are_counted(
    bench: Bench, session: asyncpg.Connection[asyncpg.Record]
) -> None:
    gauges = WaitingGauges("", bench.clock, LEASE_S)
    await bench.take_in(change_record(accepted_payment()), webhook_record("evt_1", b"{}"))
    await session.execute("UPDATE operations SET parked_reason = 'nobody knows', claimable_at = NULL")
    await gauges.look(session)
    assert shown() == (1, 1, 0, 0)
    await session.close()


async def test_one_processor_counts_and_another_when_it_is_gone(
    bench: Bench, session: asyncpg.Connection[asyncpg.Record], migrated_dsn: str
) -> None:
    other = await connect(migrated_dsn)
    gauges = WaitingGauges("", bench.clock, LEASE_S)
    await gauges.look(session)
    gauges._show(None)
    await gauges.look(other)
    assert math.isnan(shown()[0]), "the other doesn't count"
    await gauges.look(session)
    assert shown()[0] == 0
    await session.close()
    gauges._show(None)
    await gauges.look(other)
    assert shown()[0] == 0
    await other.close()
