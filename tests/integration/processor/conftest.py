"""A real PostgreSQL with the schema in place, and a processor's parts put together around a PSP double."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from uuid import uuid4

import asyncpg
import pytest

from processor.changes import ChangeRecord
from processor.commit import Committed, Committer
from processor.intake import Intake
from processor.judgement import Judge
from processor.kafka.producer import Outgoing
from processor.outcome import RetryPolicy
from processor.patience import Health
from processor.pipeline import Pipeline, Timing
from processor.psp.interface import PspAdapter
from processor.risk import RuleAssessor
from processor.storage.database import Pool, open_pool
from processor.storage.migrate import migrate
from processor.storage.operations import claim
from tests.fixtures.changes import NOW_US
from tests.fixtures.psp_double import PspDouble
from tollgate.clock import FakeClock
from tollgate.ids import PAYMENT_OPERATION
from tollgate.local.postgres import postgres_dsn as dsn_of


@dataclass
class FakePublisher:
    """Keeps what was produced. `failing` topics are not delivered."""

    produced: list[Outgoing] = field(default_factory=list)
    failing: set[str] = field(default_factory=set)

    async def publish(self, outgoing: Sequence[Outgoing]) -> list[bool]:
        delivered = [record.topic not in self.failing for record in outgoing]
        self.produced += [record for record, ok in zip(outgoing, delivered, strict=True) if ok]
        return delivered

    def of(self, topic: str) -> list[Outgoing]:
        return [record for record in self.produced if record.topic == topic]


@dataclass
class Bench:
    """One processor's parts, driven step by step. Two benches on one database are two processors."""

    pool: Pool
    psp: PspDouble
    clock: FakeClock
    publisher: FakePublisher
    intake: Intake
    pipeline: Pipeline
    committed: list[Committed]

    async def take_in(self, *records: ChangeRecord) -> None:
        await self.intake.handle(records)

    async def run_due(self, limit: int = 100, lease_s: float = 15.0) -> int:
        """Claims what is due and takes it as far as it goes; how many there were."""
        claims = await claim(self.pool, limit, lease_s, self.clock.now_us(), self.clock.monotonic())
        if claims:
            async with asyncio.timeout(10):
                await self.pipeline.run(claims, lambda: None)
        return len(claims)

    async def let_leases_end(self) -> None:
        """As if their time had passed on Postgres' clock."""
        await self.pool.execute("UPDATE operations SET claimable_at = now() WHERE claimable_at IS NOT NULL")

    async def payment(self, checkout_id: str = "checkout-0001") -> asyncpg.Record:
        row = await self.pool.fetchrow("SELECT * FROM payments WHERE checkout_id = $1", checkout_id)
        assert row is not None
        return row

    async def operation(
        self, checkout_id: str = "checkout-0001", operation_id: str = PAYMENT_OPERATION
    ) -> asyncpg.Record:
        row = await self.pool.fetchrow(
            "SELECT * FROM operations WHERE checkout_id = $1 AND id = $2", checkout_id, operation_id
        )
        assert row is not None
        return row


@pytest.fixture(scope="session")
def migrated_template(postgres_port: int) -> Iterator[str]:
    """A database with the schema, copied for each test."""
    name = f"template_{uuid4().hex}"
    asyncio.run(_admin(postgres_port, f'CREATE DATABASE "{name}"'))
    migrate(dsn_of(postgres_port, name))
    yield name
    asyncio.run(_admin(postgres_port, f'DROP DATABASE "{name}" WITH (FORCE)'))


async def _admin(port: int, statement: str) -> None:
    connection = await asyncpg.connect(dsn_of(port))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture
async def migrated_dsn(postgres_port: int, migrated_template: str) -> AsyncIterator[str]:
    name = f"test_{uuid4().hex}"
    await _admin(postgres_port, f'CREATE DATABASE "{name}" TEMPLATE "{migrated_template}"')
    yield dsn_of(postgres_port, name)
    await _admin(postgres_port, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
async def pool(migrated_dsn: str) -> AsyncIterator[Pool]:
    opened = await open_pool(migrated_dsn, 4)
    yield opened
    await opened.close()


@pytest.fixture
async def bench(pool: Pool) -> AsyncIterator[Bench]:
    async with bench_on(pool, PspDouble(), FakeClock(NOW_US + 5000)) as made:
        yield made


@asynccontextmanager
async def bench_on(pool: Pool, psp: PspDouble, clock: FakeClock, sends_max: int = 3) -> AsyncIterator[Bench]:
    health = Health()
    publisher = FakePublisher()
    committed: list[Committed] = []
    committer = Committer(pool, clock, health, committed.append)
    adapters: dict[str, PspAdapter] = {psp.name: psp}
    pipeline = Pipeline(
        pool=pool,
        committer=committer,
        adapters=adapters,
        assessor=RuleAssessor(decline_at=80),
        judge=Judge(RetryPolicy(sends_max=sends_max), clock, lambda: 0.0, lambda name: adapters[name].plan),
        timing=Timing(lease_s=15.0, psp_timeout_s=5.0),
        clock=clock,
        health=health,
    )
    intake = Intake(pool, publisher, clock, lambda: None)
    committing = asyncio.create_task(committer.run())
    try:
        yield Bench(pool, psp, clock, publisher, intake, pipeline, committed)
    finally:
        committing.cancel()
        with suppress(asyncio.CancelledError):
            await committing
