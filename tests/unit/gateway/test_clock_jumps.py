"""A wall clock that jumps: nothing leaves before its time, nothing is lost, everything goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.change_log import RetentionPolicy
from gateway.clock_trust import PAUSE_S, ClockTrust
from gateway.planner import Acknowledgement, Snapshot, StatusBatch
from gateway.retention import Retention
from tests.fixtures.shard import MERCHANT, InProcessShard, document, in_process_shard
from tollgate.clock import FakeClock
from tollgate.ids import payment_key
from tollgate.v1.payment_pb2 import Payment, Status

HOUR = 3600
DAY = 24 * HOUR
YEAR = 366 * DAY
JUMPS = (HOUR, -HOUR, YEAR, -YEAR)


def trust_of(clock: FakeClock, newest_us: int | None = None) -> ClockTrust:
    return ClockTrust(newest_us, clock.now_us(), clock.monotonic())


def is_trusted(trust: ClockTrust, clock: FakeClock) -> bool:
    return trust.is_trusted(clock.now_us(), clock.monotonic())


def keeper_of(shard: InProcessShard) -> Retention:
    policy = RetentionPolicy(DAY * 1_000_000, 2**40)
    month_us = 30 * DAY * 1_000_000
    return Retention(shard.committer, shard.store, shard.clock, policy, month_us, trust_of(shard.clock))


async def settled_payment(shard: InProcessShard, checkout_id: str) -> None:
    assert (await shard.post(checkout_id)).status == 202
    key = payment_key(MERCHANT, checkout_id)
    stored = shard.committer.read(key)
    assert stored is not None
    payment = Payment.FromString(stored)
    payment.status, payment.version = Status.STATUS_SUCCEEDED, 1
    await shard.committer.commit(StatusBatch((Snapshot(key, 1, payment.SerializeToString()),)))


@pytest.mark.parametrize("jump_s", JUMPS)
def test_a_clock_that_jumped_is_believed_again_after_a_day(jump_s: int) -> None:
    clock = FakeClock()
    trust = trust_of(clock)
    clock.advance(YEAR)
    assert is_trusted(trust, clock), "time that passes is no jump"
    clock.jump(jump_s)
    assert not is_trusted(trust, clock)
    clock.advance(PAUSE_S - 1)
    assert not is_trusted(trust, clock)
    clock.advance(1)
    assert is_trusted(trust, clock)


def test_a_clock_that_is_corrected_by_little_is_believed() -> None:
    clock = FakeClock()
    trust = trust_of(clock)
    for _ in range(100):
        clock.jump(60)
        assert is_trusted(trust, clock)


@pytest.mark.parametrize(
    ("away_s", "trusted"), [(0, True), (DAY, True), (DAY + 1, False), (YEAR, False), (-HOUR, False)]
)
def test_a_start_far_from_the_newest_change_waits_too(away_s: int, trusted: bool) -> None:
    clock = FakeClock()
    newest_us = clock.now_us()
    clock.jump(away_s)
    assert is_trusted(trust_of(clock, newest_us), clock) is trusted


@pytest.mark.parametrize("jump_s", JUMPS)
async def test_nothing_leaves_because_the_clock_jumped(tmp_path: Path, jump_s: int) -> None:
    shard = in_process_shard(tmp_path)
    keeper = keeper_of(shard)
    await settled_payment(shard, "order-0001")
    large = {"amount": 1, "currency": "USD", "payment_method": "pm_ok"} | {
        "metadata": {f"{i:02}": "é" * 500 for i in range(20)}
    }
    for number in range(30):
        await shard.post(f"order-1{number:03}", large)
    last = shard.committer.durable.last
    await shard.committer.commit(Acknowledgement(*shard.committer.identity[1:], last))
    await keeper.tick()
    shard.clock.jump(jump_s)
    await keeper.tick()
    assert (await shard.get("order-0001")).status == 200
    assert shard.committer.durable.pruned == 0
    assert (await shard.post("order-0001")).status == 200, "a replay is known as one"
    assert (await shard.post("order-0002")).status == 202, "and what is new is taken"

    shard.clock.jump(-jump_s)
    shard.clock.advance(DAY + 1)
    await keeper.tick()
    assert shard.committer.durable.pruned == 0, "setting it right is a jump as well"
    shard.clock.advance(DAY)
    await keeper.tick()
    assert shard.committer.durable.pruned > 0
    assert (await shard.get("order-0001")).status == 200, "its month is not over"


async def test_times_that_ran_ahead_do_not_keep_the_log_beyond_its_bound(tmp_path: Path) -> None:
    shard = in_process_shard(tmp_path)
    policy = RetentionPolicy(DAY * 1_000_000, 1024 * 1024)
    keeper = Retention(shard.committer, shard.store, shard.clock, policy, 1, trust_of(shard.clock))
    shard.clock.jump(YEAR)
    body = {"amount": 1, "currency": "USD", "payment_method": "pm_ok"} | {
        "metadata": {f"{i:02}": "é" * 500 for i in range(20)}
    }
    for number in range(100):
        await shard.post(f"order-{number:04}", body)
    shard.clock.jump(-YEAR)
    await shard.committer.commit(Acknowledgement(*shard.committer.identity[1:], 100))
    await keeper.tick()
    kept = shard.committer.durable.last - shard.committer.durable.pruned
    assert 0 < kept < 70, "2 MB were written and 1 MiB may stay"


async def test_a_clock_that_steps_back_shows_what_it_said(tmp_path: Path) -> None:
    shard = in_process_shard(tmp_path)
    before = document(await shard.post("order-0001"))
    shard.clock.jump(-YEAR)
    after = document(await shard.post("order-0002"))
    assert after["created_at"] < before["created_at"]
    assert document(await shard.get("order-0001")) == before
    assert before["client_secret"] == document(await shard.get("order-0001"))["client_secret"]
