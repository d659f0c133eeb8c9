"""The relay against a real outbox: repeats are allowed, losses and reorderings are not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from functools import partial
from pathlib import Path

import asyncpg
import pytest

from processor.kafka.producer import Outgoing
from processor.patience import Health
from processor.relay import Relay, RelayPolicy
from processor.ring import RingOwners
from processor.storage.database import connect
from processor.storage.operations import claim
from processor.storage.outbox import _UNPUBLISHED, mark_published, prune_published
from processor.storage.payments import SLICES
from processor.storage.slices import SliceLease
from tests.fixtures.changes import accepted_payment, change_record
from tests.integration.processor.conftest import Bench
from tollgate import topics
from tollgate.clock import FakeClock
from tollgate.errors import OperationalError
from tollgate.ring_file import RingFile, ShardEntry, write_ring_file
from tollgate.v1.shard_pb2 import StatusUpdate

ALL = range(SLICES)


@pytest.fixture
async def session(migrated_dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await connect(migrated_dsn)
    yield connection
    await connection.close()


def relay_of(bench: Bench, dsn: str) -> Relay:
    policy = RelayPolicy(batch_max=100, poll_interval_s=0.05)
    return Relay(partial(connect, dsn), bench.publisher, lambda _: 7, policy, bench.clock, Health())


def versions(events: Iterable[Outgoing]) -> list[int]:
    return [int(dict(event.headers)["ce_id"].rsplit(b"/", 1)[1]) for event in events]


def statuses(bench: Bench) -> list[Outgoing]:
    return bench.publisher.of(topics.STATUS)


async def test_each_version_is_published_once_and_marked(
    bench: Bench, migrated_dsn: str, session: asyncpg.Connection[asyncpg.Record]
) -> None:
    await bench.take_in(change_record(accepted_payment(), shard=2))
    await bench.run_due()
    relay = relay_of(bench, migrated_dsn)
    assert await relay.relay_once(session, ALL) == 3
    assert await relay.relay_once(session, ALL) == 0
    assert versions(bench.publisher.of(topics.EVENTS)) == [1, 2, 3]
    assert [record.partition for record in bench.publisher.of(topics.STATUS)] == [2, 7]


async def test_what_is_being_processed_is_told_with_its_outcome_or_a_moment_later(
    bench: Bench, migrated_dsn: str, session: asyncpg.Connection[asyncpg.Record]
) -> None:
    soon, slow = accepted_payment("checkout-soon"), accepted_payment("checkout-slow")
    await bench.take_in(change_record(soon, shard=7), change_record(slow, shard=7))
    claims = await claim(bench.pool, 2, 15.0, bench.clock.now_us(), bench.clock.monotonic())
    relay = relay_of(bench, migrated_dsn)
    assert await relay.relay_once(session, ALL) == 2
    assert await relay.relay_once(session, ALL) == 0
    assert versions(bench.publisher.of(topics.EVENTS)) == [1, 1]
    bench.publisher.produced.clear()
    (at_once,) = (one for one in claims if one.payment.checkout_id == soon.checkout_id)
    await bench.pipeline.run([at_once], lambda: None)
    assert await relay.relay_once(session, ALL) == 2
    assert versions(bench.publisher.of(topics.EVENTS)) == [2, 3]
    assert [StatusUpdate.FromString(one.value).payment.version for one in statuses(bench)] == [3]
    bench.publisher.produced.clear()
    bench.clock.advance(0.6)
    assert await relay.relay_once(session, ALL) == 1
    assert [StatusUpdate.FromString(one.value).payment.version for one in statuses(bench)] == [2]


async def test_a_row_of_a_clock_that_is_ahead_is_not_held(
    bench: Bench, migrated_dsn: str, session: asyncpg.Connection[asyncpg.Record]
) -> None:
    await bench.take_in(change_record(accepted_payment()))
    bench.clock.advance(3600)
    await claim(bench.pool, 1, 15.0, bench.clock.now_us(), bench.clock.monotonic())
    bench.clock.advance(-3600)
    assert await relay_of(bench, migrated_dsn).relay_once(session, ALL) == 2


async def test_a_crash_between_delivery_and_mark_repeats_and_never_loses_or_reorders(
    bench: Bench,
    migrated_dsn: str,
    session: asyncpg.Connection[asyncpg.Record],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await bench.take_in(change_record(accepted_payment()))

    async def crash(*_: object) -> None:
        raise OperationalError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("processor.relay.mark_published", crash)
        with pytest.raises(OperationalError):
            await relay_of(bench, migrated_dsn).relay_once(session, ALL)
    await bench.run_due()
    await relay_of(bench, migrated_dsn).relay_once(session, ALL)
    assert versions(bench.publisher.of(topics.EVENTS)) == [1, 1, 2, 3]
    assert await session.fetchval("SELECT count(*) FROM outbox WHERE published_at IS NULL") == 0


async def test_what_kafka_did_not_take_stays_unpublished(
    bench: Bench, migrated_dsn: str, session: asyncpg.Connection[asyncpg.Record]
) -> None:
    await bench.take_in(change_record(accepted_payment()))
    bench.publisher.failing.add(topics.STATUS)
    with pytest.raises(OperationalError):
        await relay_of(bench, migrated_dsn).relay_once(session, ALL)
    bench.publisher.failing.clear()
    assert await relay_of(bench, migrated_dsn).relay_once(session, ALL) == 1


async def test_a_repeated_change_makes_the_shard_hear_how_the_payment_stands(
    bench: Bench, migrated_dsn: str, session: asyncpg.Connection[asyncpg.Record]
) -> None:
    record = change_record(accepted_payment(), shard=5)
    await bench.take_in(record)
    await bench.run_due()
    relay = relay_of(bench, migrated_dsn)
    await relay.relay_once(session, ALL)
    bench.publisher.produced.clear()
    await bench.take_in(record)
    assert await relay.relay_once(session, ALL) == 1
    assert await relay.relay_once(session, ALL) == 0
    (status,) = bench.publisher.produced
    assert status.partition == 5
    assert StatusUpdate.FromString(status.value).payment.version == 3


async def test_the_oldest_rows_are_found_without_sorting_a_backlog_whatever_the_statistics_say(
    session: asyncpg.Connection[asyncpg.Record],
) -> None:
    """A plan cached while the outbox was empty may still be in use when Kafka comes back from an outage."""
    await session.execute("SET plan_cache_mode = force_generic_plan")
    await session.execute(f"PREPARE oldest AS {_UNPUBLISHED}")
    plan = await session.fetch("EXPLAIN EXECUTE oldest (NULL, NULL, NULL)")
    assert not [row[0] for row in plan if "Sort" in row[0]]


async def test_only_what_was_published_long_ago_is_forgotten(
    bench: Bench, session: asyncpg.Connection[asyncpg.Record]
) -> None:
    await bench.take_in(*(change_record(accepted_payment(f"checkout-{n:04d}")) for n in range(3)))
    first, second, third = [row["id"] for row in await session.fetch("SELECT id FROM outbox ORDER BY id")]
    await mark_published(session, [first], 1_000_000)
    await mark_published(session, [second], 3_000_000)
    await prune_published(session, 2_000_000, limit=10)
    kept = await session.fetch("SELECT id FROM outbox ORDER BY id")
    assert [row["id"] for row in kept] == [second, third]


async def test_slices_are_shared_evenly_and_a_dead_session_s_slices_go_to_the_living(
    migrated_dsn: str,
) -> None:
    first, second = await connect(migrated_dsn), await connect(migrated_dsn)
    one, two = SliceLease(first), SliceLease(second)
    await one.refresh()
    assert sorted(one.held) == list(ALL)
    await two.refresh()
    assert two.held == []
    await one.refresh()
    await two.refresh()
    assert (len(one.held), len(two.held)) == (8, 8)
    assert sorted(one.held + two.held) == list(ALL)
    await first.close()
    await two.refresh()
    assert sorted(two.held) == list(ALL)
    await second.close()


async def test_a_relay_that_stands_still_loses_its_slices_and_one_that_waits_for_kafka_does_not(
    bench: Bench, migrated_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("processor.relay._REFRESH_S", 0.02)
    waiting, still = await connect(migrated_dsn), await connect(migrated_dsn)
    assert await waiting.fetchval("SHOW idle_session_timeout") == "10s"
    for session in (waiting, still):
        await session.execute("SET idle_session_timeout = '300ms'")
    gone = asyncio.Event()
    still.add_termination_listener(lambda _: gone.set())
    await SliceLease(still).refresh()
    await bench.take_in(change_record(accepted_payment()))

    async def when_the_other_is_gone(outgoing: Sequence[Outgoing]) -> list[bool]:
        async with asyncio.timeout(10):
            await gone.wait()
        return [True] * len(outgoing)

    monkeypatch.setattr(bench.publisher, "publish", when_the_other_is_gone)
    assert await relay_of(bench, migrated_dsn).relay_once(waiting, ALL) == 1
    lease = SliceLease(waiting)
    await lease.refresh()
    assert sorted(lease.held) == list(ALL)
    await waiting.close()


async def test_a_relay_whose_session_is_gone_stops_waiting_for_kafka(
    bench: Bench, migrated_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("processor.relay._REFRESH_S", 0.02)
    await bench.take_in(change_record(accepted_payment()))
    session = await connect(migrated_dsn)

    async def never(_outgoing: Sequence[Outgoing]) -> list[bool]:
        await bench.pool.execute("SELECT pg_terminate_backend($1)", session.get_server_pid())
        return await asyncio.Future()

    monkeypatch.setattr(bench.publisher, "publish", never)
    with pytest.raises(OperationalError):
        async with asyncio.timeout(10):
            await relay_of(bench, migrated_dsn).relay_once(session, ALL)


def test_the_ring_file_is_read_again_when_it_was_replaced(tmp_path: Path) -> None:
    path, clock = tmp_path / "ring.json", FakeClock()
    owners = RingOwners(path, clock)
    assert owners.owner("checkout-0001") is None
    for shard in (0, 1):
        entry = ShardEntry(id=shard, name=f"127.0.0.1:{7100 + shard}", grpc="127.0.0.1:1")
        write_ring_file(path, RingFile(version=1 + shard, next_id=2, shards=(entry,)))
        clock.advance(2)
        assert owners.owner("checkout-0001") == shard
    path.write_text("torn")
    clock.advance(2)
    assert owners.owner("checkout-0001") == 1
