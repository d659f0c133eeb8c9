"""The budget on a real Postgres: one row that all processors reserve from, whatever their clocks say."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncpg
import pytest

from processor.budget import BudgetPolicy, Exhausted, SharedBudget, Slot
from processor.dispatch import DispatchPolicy
from processor.patience import Health
from processor.psp.interface import Outcome, PspRequest
from processor.rationed import RationedDispatcher
from processor.storage.database import Pool, open_pool
from processor.storage.operations import claim
from tests.fixtures.changes import NOW_US, accepted_payment, change_record
from tests.fixtures.psp_double import PspDouble
from tests.integration.processor.conftest import Bench, bench_on
from tollgate.clock import Clock, FakeClock, SystemClock
from tollgate.errors import OperationalError

POLL_S = 0.02  # between two looks at a condition, which has a deadline
RATE = 20.0
POLICY = BudgetPolicy(RATE, horizon_s=3.0)


class ShiftedClock(FakeClock):
    """Of a processor whose wall clock is wrong; its seconds are as long as anyone's."""

    def monotonic(self) -> float:
        return SystemClock().monotonic()


@dataclass
class TimedPsp(PspDouble):
    """Notes when each call came, on the one clock of this process."""

    called_at: list[float] = field(default_factory=list)

    async def send(self, request: PspRequest, traceparent: str) -> Outcome:
        self.called_at.append(SystemClock().monotonic())
        return await super().send(request, traceparent)


def shared(pool: Pool, clock: Clock | None = None, policy: BudgetPolicy = POLICY) -> SharedBudget:
    return SharedBudget(pool, "simulator", policy, clock or SystemClock())


async def slots_of(budget: SharedBudget, count: int) -> Sequence[Slot]:
    slots = await budget.reserve(count)
    assert not isinstance(slots, Exhausted)
    return slots


@dataclass
class DatabaseClock:
    pool: Pool

    async def ahead_s(self) -> float:
        found = await self.pool.fetchval(
            "SELECT extract(epoch FROM next_at - clock_timestamp())::float8 FROM psp_budgets"
        )
        assert isinstance(found, float)
        return found


async def test_reservations_of_many_processors_never_share_a_slot(migrated_dsn: str, pool: Pool) -> None:
    begun_s = await pool.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    pools = [await open_pool(migrated_dsn, 2) for _ in range(3)]
    clocks = [ShiftedClock(NOW_US + minutes * 60_000_000) for minutes in (-20, 0, 45)]
    budgets = [shared(pool, clock) for pool, clock in zip(pools, clocks, strict=True)]
    try:
        granted = await asyncio.gather(*(slots_of(budgets[n % 3], 1 + n % 5) for n in range(12)))
    finally:
        for opened in pools:
            await opened.close()
    slots = sorted((slot for slots in granted for slot in slots), key=lambda slot: slot.opens)
    assert len(slots) == sum(1 + n % 5 for n in range(12))
    usable = [slot for slot in slots if slot.opens < slot.closes]
    for window in (usable[first : first + int(RATE) + 1] for first in range(len(usable) - int(RATE))):
        assert window[-1].opens - min(slot.closes for slot in window) >= 1.0 - 1e-6
    end_s = await pool.fetchval("SELECT extract(epoch FROM next_at)::float8 FROM psp_budgets")
    assert end_s - begun_s >= len(slots) * POLICY.interval_s - 1e-3


async def test_what_was_not_used_is_no_credit(pool: Pool) -> None:
    budget = shared(pool)
    await slots_of(budget, 1)
    await pool.execute("UPDATE psp_budgets SET next_at = clock_timestamp() - interval '1 hour'")
    await slots_of(budget, 5)
    assert 5 * POLICY.interval_s - 1 < await DatabaseClock(pool).ahead_s() <= 5 * POLICY.interval_s


async def test_past_the_horizon_nothing_is_granted_and_nothing_is_taken(pool: Pool) -> None:
    budget = shared(pool)
    while not isinstance(granted := await budget.reserve(5), Exhausted):
        pass
    ahead_s = await DatabaseClock(pool).ahead_s()
    assert POLICY.horizon_s < ahead_s + 1
    assert ahead_s <= POLICY.ahead_max_s
    assert 0 < granted.again_in_s <= 5 * POLICY.interval_s


async def test_an_arrival_time_too_far_ahead_is_clamped_to_what_a_processor_could_have_reserved(
    pool: Pool, capsys: pytest.CaptureFixture[str]
) -> None:
    budget = shared(pool)
    await slots_of(budget, 1)
    await pool.execute("UPDATE psp_budgets SET next_at = clock_timestamp() + interval '1 hour'")
    granted = await budget.reserve(1)
    assert isinstance(granted, Exhausted)
    assert granted.again_in_s <= 5 * POLICY.interval_s + 1e-6
    assert POLICY.horizon_s - 1 < await DatabaseClock(pool).ahead_s() <= POLICY.ahead_max_s
    assert "budget_clamped" in capsys.readouterr().out


@asynccontextmanager
async def rationed(
    bench: Bench, policy: BudgetPolicy = POLICY, budget: SharedBudget | None = None
) -> AsyncIterator[RationedDispatcher]:
    dispatch = DispatchPolicy(concurrency=256, batch_max=200, poll_interval_s=POLL_S, lease_s=15.0)
    budget = budget or shared(bench.pool, bench.clock, policy)
    lane = RationedDispatcher(bench.pool, bench.pipeline, budget, dispatch, bench.clock, Health())
    task = asyncio.create_task(lane.run())
    try:
        yield lane
    finally:
        lane.stop()
        await asyncio.wait_for(task, 10)
        await lane.drain(10)


@pytest.fixture
async def benches(pool: Pool) -> AsyncIterator[tuple[Bench, Bench, Bench]]:
    """Three processors at one PSP, with clocks that are minutes apart."""
    psp = TimedPsp()
    first, second, third = (ShiftedClock(NOW_US + minutes * 60_000_000) for minutes in (0, 5, 17))
    async with (
        bench_on(pool, psp, first) as one,
        bench_on(pool, psp, second) as other,
        bench_on(pool, psp, third) as another,
    ):
        yield one, other, another


async def until(bench: Bench, query: str, wanted: int | bool, timeout_s: float = 20) -> None:
    async with asyncio.timeout(timeout_s):
        while await bench.pool.fetchval(query) != wanted:
            await asyncio.sleep(POLL_S)


SUCCEEDED = "SELECT count(*) FROM payments WHERE status = 'succeeded'"


async def test_three_processors_with_clocks_minutes_apart_keep_one_budget_retries_included(
    benches: tuple[Bench, Bench, Bench],
) -> None:
    psp = benches[0].psp
    assert isinstance(psp, TimedPsp)
    psp.script += ["refuse", "lose", "approve", "refuse"] * 3
    await benches[0].take_in(*(change_record(accepted_payment(f"checkout-{n:04d}")) for n in range(40)))
    async with rationed(benches[0]), rationed(benches[1]), rationed(benches[2]):
        await until(benches[0], SUCCEEDED, 40)
    assert len(psp.effects) == 40
    assert len(psp.called_at) == 49
    called = sorted(psp.called_at)
    for earlier, later in zip(called, called[int(RATE) :], strict=False):
        assert later - earlier >= 1.0
    forfeited = await benches[0].pool.fetchval("SELECT count(*) FROM attempts WHERE outcome IS NULL")
    assert forfeited == 0


async def test_a_merchant_with_much_to_do_does_not_keep_the_others_waiting(bench: Bench) -> None:
    await bench.take_in(*(change_record(accepted_payment(f"flood-{n:06d}")) for n in range(60)))
    await bench.take_in(
        *(
            change_record(accepted_payment(f"{merchant}-{n:04d}-0001", merchant=merchant))
            for merchant in ("aaa", "mmm", "zzz")
            for n in range(3)
        )
    )
    sent: list[str] = []
    plan = bench.pipeline.plan

    async def noted(claims: Sequence[object]) -> object:
        sent.extend(one.payment.merchant for one in claims)  # type: ignore[attr-defined]
        return await plan(claims)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.pipeline, "plan", noted)
        patch.setattr(bench.clock, "monotonic", SystemClock().monotonic)
        async with rationed(bench, BudgetPolicy(4, 3.0)):  # one a reservation
            async with asyncio.timeout(20):
                while len(sent) < 12:
                    await asyncio.sleep(POLL_S)
    assert Counter(sent[:12]) == {"aaa": 3, "acme": 3, "mmm": 3, "zzz": 3}


async def test_a_batch_that_is_claimed_at_once_is_shared_among_the_merchants(bench: Bench) -> None:
    for merchant, count in {"aaa": 20, "bbb": 1, "ccc": 20}.items():
        await bench.take_in(
            *(change_record(accepted_payment(f"{merchant}-{n:06d}", merchant=merchant)) for n in range(count))
        )
    async with rationed(bench, BudgetPolicy(48, 3.0)) as lane:
        lane.stop()
        claims = await lane._claim(12)
    assert Counter(claimed.payment.merchant for claimed in claims) == {"aaa": 4, "bbb": 1, "ccc": 4}
    assert all(claimed.fencing_token == 1 and claimed.payment.version == 2 for claimed in claims)


async def test_without_postgres_nothing_is_sent(bench: Bench, postgres_port: int, migrated_dsn: str) -> None:
    await bench.take_in(change_record(accepted_payment()))
    reserving, down = asyncio.Event(), asyncio.Event()

    class Cut(SharedBudget):
        async def reserve(self, count: int) -> Sequence[Slot] | Exhausted:
            reserving.set()
            await down.wait()
            return await super().reserve(count)

    bench.clock.monotonic = SystemClock().monotonic  # type: ignore[method-assign]
    database = migrated_dsn.rpartition("/")[2].partition("?")[0]
    admin = await asyncpg.connect(migrated_dsn.replace(database, "postgres"))
    async with rationed(bench, budget=Cut(bench.pool, "simulator", POLICY, bench.clock)):
        await asyncio.wait_for(reserving.wait(), 10)
        await admin.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS false')
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", database
        )
        down.set()
        await asyncio.sleep(10 * POLL_S)
        assert not bench.psp.sent
        await admin.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS true')
        await until_connected(bench)
        await bench.let_leases_end()
        await until(bench, SUCCEEDED, 1)
    assert len(bench.psp.sent) == 1
    await admin.close()


async def until_connected(bench: Bench) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                await bench.pool.fetchval("SELECT 1")
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                await asyncio.sleep(POLL_S)
            else:
                return


async def test_a_missed_slot_is_forfeited_and_leaves_no_trace_of_a_call(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storing takes longer than a slot is open, once."""
    store = bench.pipeline.store
    clock = ShiftedClock(NOW_US + 5000)
    late_s = 0.0
    monkeypatch.setattr(bench.clock, "monotonic", lambda: clock.monotonic() + late_s)
    found: list[int] = []

    async def slow(attempts: Sequence[object]) -> object:
        nonlocal late_s
        stored = await store(attempts)  # type: ignore[arg-type]
        if not late_s:
            late_s = 0.2
        else:
            found.append(await bench.pool.fetchval("SELECT count(*) FROM attempts"))
        return stored

    monkeypatch.setattr(bench.pipeline, "store", slow)
    await bench.take_in(change_record(accepted_payment()))
    async with rationed(bench):
        await until(bench, SUCCEEDED, 1)
    assert found  # and stored as the first and only one, however often it was missed
    assert set(found) == {1}
    assert len(bench.psp.sent) == 1
    attempts = await bench.pool.fetch("SELECT number, outcome FROM attempts")
    assert [tuple(row) for row in attempts] == [(1, "approved")]


async def test_who_waits_past_the_horizon_gives_its_claims_back_and_stops_claiming(bench: Bench) -> None:
    bench.clock.monotonic = SystemClock().monotonic  # type: ignore[method-assign]
    slow = BudgetPolicy(0.5, horizon_s=3.0)
    await slots_of(shared(bench.pool, policy=slow), 1)
    await bench.take_in(*(change_record(accepted_payment(f"checkout-{n:04d}")) for n in range(10)))
    await bench.pool.execute("UPDATE psp_budgets SET next_at = clock_timestamp() + interval '5 seconds'")
    async with rationed(bench, slow):
        await until(bench, "SELECT max(fencing_token) FROM operations", 1)
        due = "SELECT count(*) FROM operations WHERE claimable_at <= now()"
        await until(bench, due, 10)
        assert await bench.pool.fetchval("SELECT max(fencing_token) FROM operations") == 1
    assert not bench.psp.sent


async def test_the_stop_gives_back_what_waits_for_its_slot(bench: Bench) -> None:
    bench.clock.monotonic = SystemClock().monotonic  # type: ignore[method-assign]
    await slots_of(shared(bench.pool), 1)
    await bench.pool.execute("UPDATE psp_budgets SET next_at = clock_timestamp() + interval '2.5 seconds'")
    await bench.pool.execute("CREATE TABLE before AS SELECT next_at FROM psp_budgets")
    await bench.take_in(change_record(accepted_payment()))
    async with rationed(bench):
        await until(bench, "SELECT b.next_at > before.next_at FROM psp_budgets AS b, before", True)
    assert not bench.psp.sent
    assert await bench.pool.fetchval("SELECT count(*) FROM attempts") == 0
    assert len(await claim(bench.pool, 10, 15.0, bench.clock.now_us(), 0.0)) == 1


async def test_a_payment_that_expires_while_it_waits_is_not_sent(bench: Bench) -> None:
    bench.clock.monotonic = SystemClock().monotonic  # type: ignore[method-assign]
    await slots_of(shared(bench.pool), 1)
    await bench.pool.execute("UPDATE psp_budgets SET next_at = clock_timestamp() + interval '1 second'")
    await bench.take_in(change_record(accepted_payment()))
    async with rationed(bench):
        await until(bench, "SELECT fencing_token FROM operations", 1)
        bench.clock.jump(3601)
        await until(bench, "SELECT count(*) FROM payments WHERE failure_code = 'expired'", 1)
    assert not bench.psp.sent


async def test_an_unlimited_psp_s_dispatcher_leaves_the_limited_one_s_alone(bench: Bench) -> None:
    await bench.take_in(change_record(accepted_payment()))
    now_us = bench.clock.now_us()
    assert await claim(bench.pool, 10, 15.0, now_us, 0.0, except_psps=("simulator",)) == []
    assert len(await claim(bench.pool, 10, 15.0, now_us, 0.0, except_psps=("stripe",))) == 1


async def test_an_operation_stored_without_its_psp_has_its_payment_s(bench: Bench) -> None:
    await bench.take_in(change_record(accepted_payment()))
    await bench.pool.execute(
        "INSERT INTO operations (merchant, checkout_id, id, type, amount, created_at) "
        "VALUES ('acme', 'checkout-0001', 'op_1', 'payment', 1, now()::timestamptz)"
    )
    assert await bench.pool.fetchval("SELECT array_agg(DISTINCT psp) FROM operations") == ["simulator"]


async def test_a_budget_that_can_t_be_reserved_says_so(bench: Bench) -> None:
    await bench.pool.execute("ALTER TABLE psp_budgets RENAME TO gone")
    with pytest.raises(OperationalError, match="reserving calls"):
        await shared(bench.pool).reserve(1)
