from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.change_log import RetentionPolicy
from gateway.clock_trust import ClockTrust
from gateway.planner import Acknowledgement, Snapshot, StatusBatch
from gateway.retention import Retention, may_be_older, may_leave
from gateway.store.memory import Disk
from tests.fixtures.shard import MERCHANT, InProcessShard, in_process_shard
from tollgate.ids import payment_key
from tollgate.shard_layout import CHANGES
from tollgate.status import AUTHORIZED, OPEN, TRANSITIONS, StatusValue
from tollgate.v1.payment_pb2 import Operation, OperationStatus, Payment, Status

DAY_US = 24 * 3600 * 1_000_000
MONTH_S = 30 * 24 * 3600


def retention(shard: InProcessShard) -> Retention:
    policy = RetentionPolicy(DAY_US, 2**40)
    trust = ClockTrust(None, shard.clock.now_us(), shard.clock.monotonic())
    return Retention(shard.committer, shard.store, shard.clock, policy, MONTH_S * 1_000_000, trust)


@pytest.mark.parametrize("status", TRANSITIONS)
def test_only_what_is_settled_and_old_may_leave(status: StatusValue) -> None:
    payment = Payment(status=status, updated_at_us=100)
    settled = status not in OPEN and status != AUTHORIZED
    assert may_leave(payment, older_than_us=101) is settled
    assert not may_leave(payment, older_than_us=100)
    payment.operations.append(Operation(status=OperationStatus.OPERATION_STATUS_PENDING))
    assert not may_leave(payment, older_than_us=101)


@given(
    st.integers(1, 2**62),
    st.integers(0, 2**62),
    st.integers(-2, 2),
    st.text(st.sampled_from("a\x01\u0088\x7f"), max_size=40),
)
def test_no_old_payment_is_taken_for_a_young_one_whatever_its_texts_look_like(
    updated_at_us: int, created_at_us: int, later: int, text: str
) -> None:
    payment = Payment(updated_at_us=updated_at_us, created_at_us=created_at_us, description=text)
    than_us = updated_at_us + later
    assert may_be_older(payment.SerializeToString(), than_us) or updated_at_us >= than_us


def test_a_young_payment_is_known_without_being_made() -> None:
    payment = Payment(updated_at_us=DAY_US, created_at_us=1, description="a tea", metadata=[])
    assert not may_be_older(payment.SerializeToString(), DAY_US)
    assert may_be_older(payment.SerializeToString(), DAY_US + 1)


async def test_a_settled_payment_leaves_after_a_month_and_an_open_one_stays(tmp_path: Path) -> None:
    shard = in_process_shard(tmp_path)
    for number, status in enumerate((Status.STATUS_SUCCEEDED, Status.STATUS_PROCESSING), 1):
        await shard.post(f"order-000{number}")
        key = payment_key(MERCHANT, f"order-000{number}")
        stored = shard.committer.read(key)
        assert stored is not None
        payment = Payment.FromString(stored)
        payment.status, payment.version = status, 1
        await shard.committer.commit(StatusBatch((Snapshot(key, 1, payment.SerializeToString()),)))
    keeper = retention(shard)
    shard.clock.advance(MONTH_S - 1)
    await keeper.tick()
    assert (await shard.get("order-0001")).status == 200
    shard.clock.advance(2)
    await keeper.tick()
    assert (await shard.get("order-0001")).status == 404
    assert (await shard.get("order-0002")).status == 200


async def test_shipped_changes_leave_after_a_day_and_unshipped_ones_never(tmp_path: Path) -> None:
    disk = Disk()
    shard = in_process_shard(tmp_path, disk=disk)
    body = {"amount": 1, "currency": "USD", "payment_method": "pm_ok"}
    metadata = {f"{i:02}": "é" * 500 for i in range(20)}
    for number in range(30):
        await shard.post(f"order-{number:04}", body | {"metadata": metadata})
    marks = shard.committer.durable.marks
    assert marks, "enough was written for a piece"
    keeper = retention(shard)
    shard.clock.advance(24 * 3600 + 1)
    await keeper.tick()
    assert len(disk.synced[CHANGES]) == 30
    await shard.committer.commit(Acknowledgement(*shard.committer.identity[1:], 30))
    await keeper.tick()
    assert shard.committer.durable.pruned == marks[-1].sequence
    assert len(disk.synced[CHANGES]) == 30 - marks[-1].sequence
