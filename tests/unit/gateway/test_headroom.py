"""Too little room: new payments are refused, all else goes on, and it ends by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.bootstrap import build_headroom
from gateway.change_log import MARK_BYTES, LogState, Mark
from gateway.headroom import Headroom, HeadroomPolicy, Room, Shortage, backlog_bytes, judge_room
from gateway.planner import Acknowledgement, Snapshot, StatusBatch
from gateway.store.memory import Disk
from tests.fixtures.shard import MERCHANT, InProcessShard, assert_problem, document, in_process_shard
from tests.fixtures.shard import shard_settings as settings_of
from tollgate.ids import payment_key
from tollgate.v1.payment_pb2 import Payment, Status

MIB = 1024 * 1024
POLICY = HeadroomPolicy(disk_free_min=1000, backlog_bytes_max=1000)


class Volume:
    def __init__(self, free: int) -> None:
        self.free = free
        self.broken = False

    def __call__(self) -> int:
        if self.broken:
            raise OSError(5, "Input/output error")
        return self.free


def headroom_of(shard: InProcessShard, tmp_path: Path, volume: Volume, backlog_bytes_max: int) -> Headroom:
    settings = settings_of(tmp_path)
    limits = settings.shard.model_copy(
        update={"disk_free_min": 10 * MIB, "backlog_bytes_max": backlog_bytes_max}
    )
    settings = settings.model_copy(update={"shard": limits})
    return build_headroom(settings, shard.committer, shard.health, shard.metrics, volume)


@pytest.mark.parametrize(
    ("room", "before", "after"),
    [
        (Room(1000, 1000), Shortage(), Shortage()),
        (Room(999, 1000), Shortage(), Shortage(disk=True)),
        (Room(1000, 1001), Shortage(), Shortage(backlog=True)),
        (Room(0, 9999), Shortage(), Shortage(disk=True, backlog=True)),
        (Room(1099, 0), Shortage(disk=True), Shortage(disk=True)),
        (Room(1100, 0), Shortage(disk=True), Shortage()),
        (Room(9999, 901), Shortage(backlog=True), Shortage(backlog=True)),
        (Room(9999, 900), Shortage(backlog=True), Shortage()),
        (Room(1100, 1000), Shortage(disk=True), Shortage()),
    ],
)
def test_a_shortage_ends_a_little_beyond_where_it_began(
    room: Room, before: Shortage, after: Shortage
) -> None:
    assert judge_room(POLICY, room, before) == after


def marks(*sequences: int) -> tuple[Mark, ...]:
    return tuple(Mark(sequence, 0, sequence * MARK_BYTES) for sequence in sequences)


@pytest.mark.parametrize(
    ("log", "pieces"),
    [
        (LogState(), 0),
        (LogState(last=9, acknowledged=9, bytes_total=9 * MARK_BYTES, marks=marks(*range(1, 10))), 0),
        (LogState(last=9, acknowledged=6, bytes_total=9 * MARK_BYTES, marks=marks(*range(1, 10))), 3),
        (LogState(last=9, acknowledged=0, bytes_total=9 * MARK_BYTES, marks=marks(*range(1, 10))), 9),
        # Every mark is pruned and the log goes on: what was before them is not the backlog.
        (LogState(last=9, acknowledged=7, pruned=7, bytes_total=9_999 * MARK_BYTES), 1),
    ],
)
def test_the_backlog_is_known_to_within_a_piece_of_the_log(log: LogState, pieces: int) -> None:
    assert backlog_bytes(log) == pieces * MARK_BYTES


async def test_a_full_volume_refuses_new_payments_and_nothing_else(tmp_path: Path) -> None:
    disk, volume = Disk(), Volume(11 * MIB)
    shard = in_process_shard(tmp_path, disk=disk)
    headroom = headroom_of(shard, tmp_path, volume, 2**40)
    await headroom.look()
    assert (await shard.post("order-0001")).status == 202
    volume.free = 10 * MIB - 1
    await headroom.look()

    refused = await shard.post("order-0002")
    assert_problem(refused, 503, "overloaded")
    assert "9 MiB are free" in document(refused)["detail"]
    writes = len(disk.synced["changes"])
    replay = await shard.post("order-0001")
    assert (replay.status, dict(replay.headers)["idempotent-replayed"]) == (200, "true")
    assert (
        await shard.post("order-0001", {"amount": 7, "currency": "USD", "payment_method": "p"})
    ).status == 422
    assert len(disk.synced["changes"]) == writes, "a replay writes nothing"
    assert (await shard.get("order-0001")).status == 200
    assert (await shard.post("order-0002", {"amount": "1"})).status == 400
    ready = await shard.send("GET", "/readyz")
    assert (ready.status, document(ready)["status"]) == (200, "ready")
    assert "New payments are refused" in document(ready)["detail"]
    assert b"tollgate_refusing_payments 1.0" in shard.metrics.render()

    key = payment_key(MERCHANT, "order-0001")
    snapshot = Payment(merchant=MERCHANT, checkout_id="order-0001", status=Status.STATUS_SUCCEEDED, version=1)
    await shard.committer.commit(StatusBatch((Snapshot(key, 1, snapshot.SerializeToString()),)))
    await shard.committer.commit(Acknowledgement(*shard.committer.identity[1:], 1))
    assert shard.committer.durable.acknowledged == 1

    volume.free = 11 * MIB - 1
    await headroom.look()
    assert (await shard.post("order-0002")).status == 503, "a tenth more must be free"
    volume.free = 11 * MIB
    await headroom.look()
    assert (await shard.post("order-0002")).status == 202
    assert b"tollgate_refusing_payments 0.0" in shard.metrics.render()
    assert "detail" not in document(await shard.send("GET", "/readyz"))


async def test_a_backlog_that_kafka_does_not_take_refuses_until_it_is_shipped(tmp_path: Path) -> None:
    shard = in_process_shard(tmp_path)
    headroom = headroom_of(shard, tmp_path, Volume(2**40), 2 * MARK_BYTES)
    body = {"amount": 1, "currency": "USD", "payment_method": "pm_ok"}
    body_of_20_kb = body | {"metadata": {f"{i:02}": "é" * 500 for i in range(20)}}
    accepted = 0
    while (await shard.post(f"order-{accepted:04}", body_of_20_kb)).status == 202:
        accepted += 1
        await headroom.look()
        assert accepted < 100, "the bound is met"
    assert accepted * 20_000 > MARK_BYTES
    assert_problem(await shard.post("order-new1"), 503, "overloaded")
    assert "wait to be shipped" in document(await shard.post("order-new1"))["detail"]
    await shard.committer.commit(Acknowledgement(*shard.committer.identity[1:], shard.committer.durable.last))
    await headroom.look()
    assert (await shard.post("order-new1")).status == 202


async def test_a_volume_that_can_not_be_asked_has_no_room(tmp_path: Path) -> None:
    shard, volume = in_process_shard(tmp_path), Volume(2**40)
    headroom = headroom_of(shard, tmp_path, volume, 2**40)
    volume.broken = True
    await headroom.look()
    assert_problem(await shard.post("order-0001"), 503, "overloaded")
    volume.broken = False
    await headroom.look()
    assert (await shard.post("order-0001")).status == 202
