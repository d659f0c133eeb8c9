"""Velocity over several processors, and the risk service in a process of its own: right, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from processor.risk import RuleAssessor, Rules
from processor.risk.remote import RemoteAssessor
from processor.risk.rules import Velocity
from processor.risk.service import start_risk
from processor.risk.velocity import SharedCounts
from processor.storage.database import Pool, open_pool
from processor.storage.velocity import Question, count_sightings, prune_sightings
from tests.fixtures.changes import accepted_payment, change_record
from tests.fixtures.free_port import free_port
from tests.integration.processor.conftest import Bench
from tests.integration.processor.risk_part import risk_part
from tollgate.errors import OperationalError
from tollgate.local import process
from tollgate.v1.payment_pb2 import Payment

RULES = Rules.model_validate(
    {
        "velocity": [
            {"of": "customer", "window_s": 3600, "more_than": 5, "points": 60},
            {"of": "payment_method", "window_s": 60, "more_than": 9000, "points": 60},
        ]
    }
)
CUSTOMER = RULES.velocity[0]


def made(number: int, customer: str = "customer-1", merchant: str = "acme") -> Payment:
    payment = accepted_payment(f"checkout-{number:04d}", merchant=merchant)
    payment.customer_id = customer
    return payment


@asynccontextmanager
async def counting(pool: Pool, rules: Rules = RULES) -> AsyncIterator[SharedCounts]:
    counts = SharedCounts(pool, rules.velocity)
    running = asyncio.create_task(counts.run())
    try:
        yield counts
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def count_of(counts: SharedCounts, payment: Payment) -> int:
    return (await counts.counts(payment, RULES.velocity))[CUSTOMER]


async def test_three_processors_at_once_count_each_payment_once_and_none_is_overlooked(
    migrated_dsn: str,
) -> None:
    """Forty payments of one customer, each asked about by all three, must come to the counts 1 to 6."""
    pools = [await open_pool(migrated_dsn, 2) for _ in range(3)]
    try:
        async with counting(pools[0]) as one, counting(pools[1]) as other, counting(pools[2]) as third:
            asked = [(counts, made(number)) for number in range(40) for counts in (one, other, third)]
            found = await asyncio.gather(*(count_of(counts, payment) for counts, payment in asked))
    finally:
        for pool in pools:
            await pool.close()
    for first in range(0, len(found), 3):
        assert len(set(found[first : first + 3])) == 1  # the same payment, the same count
    assert sorted(found[::3]) == [1, 2, 3, 4, 5] + [6] * 35  # counted no further than the rule asks


async def test_two_that_count_one_customer_at_once_never_miss_each_other_s_payments(
    migrated_dsn: str,
) -> None:
    """Each of 90 payments in a transaction of its own, many at a time: every count comes once."""
    pools = [await open_pool(migrated_dsn, 4) for _ in range(3)]
    try:
        found = await asyncio.gather(
            *(
                count_sightings(
                    pools[number % 3],
                    [Question("acme", f"checkout-{number:04d}", "customer", "customer-1", 3600.0, 1000)],
                )
                for number in range(90)
            )
        )
    finally:
        for pool in pools:
            await pool.close()
    assert sorted(count for (count,) in found) == list(range(1, 91))


async def test_a_payment_asked_about_again_much_later_has_the_count_it_had(pool: Pool) -> None:
    async with counting(pool) as counts:
        assert [await count_of(counts, made(number)) for number in range(4)] == [1, 2, 3, 4]
        assert [await count_of(counts, made(number)) for number in range(4)] == [1, 2, 3, 4]


async def test_only_the_same_customer_of_the_same_merchant_within_the_window_counts(pool: Pool) -> None:
    async with counting(pool) as counts:
        for number in range(4):
            await count_of(counts, made(number))
        assert await count_of(counts, made(10, customer="customer-2")) == 1
        assert await count_of(counts, made(11, merchant="other")) == 1
        await pool.execute("UPDATE risk.sightings SET seen_at = seen_at - interval '2 hours'")
        assert await count_of(counts, made(12)) == 1


async def test_what_no_window_reaches_is_forgotten(pool: Pool) -> None:
    async with counting(pool) as counts:
        await count_of(counts, made(1))
        assert await prune_sightings(pool, 60.0, 100) == 0
        await pool.execute("UPDATE risk.sightings SET seen_at = seen_at - interval '2 minutes'")
        assert await prune_sightings(pool, 60.0, 1) == 1
        assert await prune_sightings(pool, 60.0, 100) == 1  # customer and payment method


async def test_a_customer_in_a_hurry_is_declined_with_the_reason_and_the_psp_never_hears_of_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with counting(bench.pool) as counts:
        monkeypatch.setattr(bench.pipeline, "_assessor", RuleAssessor(60, RULES, counts))
        for number in range(7):
            await bench.take_in(change_record(made(number)))
            await bench.run_due()
    failed = await bench.pool.fetch("SELECT * FROM payments WHERE status = 'failed'")
    assert [row["failure_code"] for row in failed] == ["risk_declined"] * 2
    assert len(bench.psp.effects) == 5
    reasons = await bench.pool.fetch("SELECT DISTINCT reasons::text FROM risk.assessments WHERE declined")
    assert [row[0] for row in reasons] == ['["customer_velocity"]']


class Silent:
    async def counts(self, payment: Payment, rules: Sequence[Velocity]) -> Mapping[Velocity, int]:
        await asyncio.Event().wait()
        raise AssertionError


async def test_a_count_that_does_not_come_in_time_postpones_the_payment_and_nothing_is_sent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.pipeline, "_assessor", RuleAssessor(60, RULES, Silent(), timeout_s=0.05))
    await bench.take_in(change_record(made(1)))
    await bench.run_due()
    assert not bench.psp.sent
    assert await bench.pool.fetchval("SELECT claimable_at > now() + interval '5 s' FROM operations")
    assert (await bench.payment())["status"] == "processing"


async def test_a_service_that_is_down_or_silent_or_wrong_gives_no_assessment() -> None:
    nobody = RemoteAssessor(f"127.0.0.1:{free_port()}", timeout_s=2.0)
    with pytest.raises(OperationalError, match="UNAVAILABLE"):
        await nobody.assess(made(1))
    await nobody.close()
    address = f"127.0.0.1:{free_port()}"
    server = await start_risk(address, RuleAssessor(60, RULES, Silent(), timeout_s=30))
    silent = RemoteAssessor(address, timeout_s=0.1)
    with pytest.raises(OperationalError, match="DEADLINE_EXCEEDED"):
        await silent.assess(made(1))
    await silent.close()
    await server.stop(0)


@pytest.mark.fault
async def test_the_service_in_its_own_process_assesses_dies_and_comes_back(
    tmp_path: Path, migrated_dsn: str
) -> None:
    address = f"127.0.0.1:{free_port()}"
    part = risk_part(tmp_path, migrated_dsn, address, '[deny]\ncustomers = ["customer-bad"]\n')
    running = process.start(part)
    remote = RemoteAssessor(address, timeout_s=10.0)
    try:
        await process.wait_ready(part, running, timeout_s=30)
        assert not (await remote.assess(made(1))).declined
        denied = await remote.assess(made(2, customer="customer-bad"))
        assert (denied.score, denied.reasons, denied.declined) == (99, ("denied_customer",), True)
        running.kill()
        running.wait()
        with pytest.raises(OperationalError):
            await remote.assess(made(3))
        running = process.start(part)
        await process.wait_ready(part, running, timeout_s=30)
        async with asyncio.timeout(10):
            while True:
                with suppress(OperationalError):
                    assert not (await remote.assess(made(3))).declined
                    break
    finally:
        await remote.close()
        await process.stop(part, running)
    assert running.returncode == 0
