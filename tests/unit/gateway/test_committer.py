from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.errors import NotReady, RingFull, StoreBusy, StoreFailed
from gateway.http.message import Response
from gateway.planner import Acknowledgement, Departure, MerchantsCopy, Result
from gateway.settings import CommitSettings
from gateway.store.memory import Disk
from tests.fixtures.shard import HeldDisk, InProcessShard, assert_problem, document, header, in_process_shard
from tollgate.v1.change_pb2 import Change


def held(shard: InProcessShard) -> HeldDisk:
    flusher = shard.committer._flusher
    assert isinstance(flusher, HeldDisk)
    return flusher


async def settle() -> None:
    """Lets everything run that can run without the disk."""
    for _ in range(10):
        await asyncio.sleep(0)


async def start(shard: InProcessShard, checkout_id: str) -> asyncio.Task[Response]:
    task = asyncio.create_task(shard.post(checkout_id))
    await settle()
    return task


async def test_a_202_is_never_sent_before_the_fsync(tmp_path: Path) -> None:
    disk = Disk()
    shard = in_process_shard(tmp_path, disk=disk, flusher=HeldDisk)
    posted = await start(shard, "order-0001")
    assert disk.unsynced, "the batch is written"
    assert not posted.done()
    watermark = shard.watermark.read()
    assert watermark is not None
    assert watermark.sequence == 0
    held(shard).complete()
    assert (await posted).status == 202
    assert not disk.unsynced
    watermark = shard.watermark.read()
    assert watermark is not None
    assert watermark.sequence == 1


async def test_what_is_not_on_disk_is_not_shown(tmp_path: Path) -> None:
    shard = in_process_shard(tmp_path, flusher=HeldDisk)
    posted = await start(shard, "order-0001")
    assert (await shard.get("order-0001")).status == 404
    replay = await start(shard, "order-0001")
    assert not replay.done()
    held(shard).complete()
    assert (await posted).status == 202
    assert (await shard.get("order-0001")).status == 200
    answer = await replay
    assert answer.status == 200
    assert header(answer, "idempotent-replayed") == "true"


async def test_two_of_the_same_id_in_one_batch_make_one_payment(tmp_path: Path) -> None:
    disk = Disk()
    shard = in_process_shard(tmp_path, disk=disk)
    posts = [shard.post("order-0001"), shard.post("order-0001"), shard.post("order-0001", {"amount": 1})]
    other = shard.post("order-0001", {"amount": 7, "currency": "USD", "payment_method": "pm_ok"})
    answers = await asyncio.gather(*posts, other)
    assert [answer.status for answer in answers] == [202, 200, 400, 422]
    assert document(answers[0]) == document(answers[1])
    assert len(disk.synced["changes"]) == 1


async def test_what_arrives_during_an_fsync_is_the_next_batch(tmp_path: Path) -> None:
    disk = Disk()
    shard = in_process_shard(tmp_path, disk=disk, flusher=HeldDisk)
    first = await start(shard, "order-0001")
    others = [await start(shard, f"order-100{i}") for i in range(5)]
    assert len(held(shard).pending) == 1
    held(shard).complete()
    assert (await first).status == 202
    assert len(held(shard).pending) == 1
    assert not any(task.done() for task in others)
    held(shard).complete()
    assert {(await task).status for task in others} == {202}
    sequences = [Change.FromString(raw).sequence for _, raw in sorted(disk.synced["changes"].items())]
    assert sequences == [1, 2, 3, 4, 5, 6]


async def test_there_is_one_commit_at_a_time_whoever_asks_while_answers_are_given(tmp_path: Path) -> None:
    """A request that was pipelined behind another is handed over while that one is answered."""
    shard = in_process_shard(tmp_path, flusher=HeldDisk)
    told: list[str] = []

    def first(_result: Result) -> None:
        told.append("first")
        shard.committer.hand_over(MerchantsCopy(b"2"), lambda _: told.append("pipelined"))

    shard.committer.hand_over(MerchantsCopy(b"1"), first)
    await settle()
    held(shard).complete()
    shard.committer.hand_over(MerchantsCopy(b"3"), lambda _: told.append("next"))
    await settle()
    assert len(held(shard).pending) == 1, (
        "two commits are under way: each would be answered by the other's fsync"
    )
    held(shard).complete()
    assert told == ["first", "pipelined", "next"]
    assert not held(shard).pending


async def test_there_is_one_commit_at_a_time_whoever_asks_while_a_batch_without_a_change_is_answered(
    tmp_path: Path,
) -> None:
    shard = in_process_shard(tmp_path, flusher=HeldDisk)
    told: list[str] = []
    nothing = Departure("acme/order-0001", 1)  # there is no such payment, so nothing is written

    def asked_again(_result: Result) -> None:
        asyncio.get_running_loop().call_soon(late)
        shard.committer.hand_over(MerchantsCopy(b"1"), lambda _: told.append("first"))

    def late() -> None:
        shard.committer.hand_over(MerchantsCopy(b"2"), lambda _: told.append("second"))

    shard.committer.hand_over(nothing, asked_again)
    await settle()
    assert len(held(shard).pending) == 1
    held(shard).complete()
    await settle()
    assert told == ["first"]
    held(shard).complete()
    assert told == ["first", "second"]


async def test_a_failed_fsync_never_acknowledges_and_ends_the_shard(tmp_path: Path) -> None:
    shard = in_process_shard(tmp_path, flusher=HeldDisk)
    posted, waiting = await start(shard, "order-0001"), await start(shard, "order-0002")
    held(shard).break_down()
    for answer in (
        await posted,
        await waiting,
        await shard.post("order-0003"),
        await shard.get("order-0001"),
    ):
        assert answer.status == 503
        assert document(answer)["code"] == "not_ready"
        assert header(answer, "retry-after")
    readyz = await shard.send("GET", "/readyz")
    assert readyz.status == 503
    assert "fsync" in document(readyz)["detail"]
    assert (await shard.send("GET", "/livez")).status == 200
    watermark = shard.watermark.read()
    assert watermark is not None
    assert watermark.sequence == 0


async def test_a_failed_write_ends_the_shard(tmp_path: Path) -> None:
    def fault(call: str) -> None:
        if call == "write":
            raise StoreFailed("A write of the store failed: No space left on device.")

    shard = in_process_shard(tmp_path, fault=fault)
    assert (await shard.post("order-0001")).status == 503
    assert shard.committer.failure is not None
    with pytest.raises(NotReady):
        shard.committer.submit(Acknowledgement(b"", 0, 0))


async def test_a_refused_write_is_overload_and_nothing_more(tmp_path: Path) -> None:
    refusals = [StoreBusy("The store is behind.")]

    def fault(call: str) -> None:
        if call == "write" and refusals:
            raise refusals.pop()

    disk = Disk()
    shard = in_process_shard(tmp_path, disk=disk, fault=fault)
    answer = await shard.post("order-0001")
    assert answer.status == 503
    assert document(answer)["code"] == "overloaded"
    assert (await shard.post("order-0001")).status == 202
    assert [Change.FromString(raw).sequence for raw in disk.synced["changes"].values()] == [1]


async def test_a_full_ring_is_overload(tmp_path: Path) -> None:
    commit = CommitSettings(ring_slots=2, batch_count_max=1)
    shard = in_process_shard(tmp_path, flusher=HeldDisk, commit=commit)
    tasks = [await start(shard, f"order-000{i}") for i in range(4)]
    answer = await tasks[3]
    assert answer.status == 503
    assert document(answer)["code"] == "overloaded"
    assert header(answer, "retry-after")
    for task in tasks[:3]:
        held(shard).complete()
        assert (await task).status == 202


async def test_a_client_that_goes_away_leaves_a_payment_that_stands(tmp_path: Path) -> None:
    shard = in_process_shard(tmp_path, flusher=HeldDisk)
    posted = await start(shard, "order-0001")
    posted.cancel()
    await settle()
    held(shard).complete()
    assert (await shard.get("order-0001")).status == 200


async def test_those_who_wait_for_a_hung_disk_are_answered(tmp_path: Path) -> None:
    shard = in_process_shard(tmp_path, flusher=HeldDisk)
    writing, waiting = await start(shard, "order-0001"), await start(shard, "order-0002")
    shard.clock.advance(2.5)
    assert shard.committer.commit_age() == 2.5
    shard.committer.abandon("A commit waits for the disk.")
    assert (await writing).status == 503
    assert (await waiting).status == 503
    held(shard).complete()
    assert shard.committer.commit_age() == 0.0
    assert (await shard.get("order-0001")).status == 200, "what was being written came to stand"
    assert (await shard.get("order-0002")).status == 404, "what had not begun never will"


async def test_a_ring_full_raises_for_the_services_too(tmp_path: Path) -> None:
    commit = CommitSettings(ring_slots=2, batch_count_max=1)
    shard = in_process_shard(tmp_path, flusher=HeldDisk, commit=commit)
    for _ in range(2):
        shard.committer.submit(Acknowledgement(*shard.committer.identity[1:], 0))
    with pytest.raises(RingFull):
        shard.committer.submit(Acknowledgement(*shard.committer.identity[1:], 0))


async def test_a_watermark_that_cannot_be_written_is_the_end_of_the_store(tmp_path: Path) -> None:
    shard = in_process_shard(tmp_path)
    shard.committer._watermark.close()
    answer = await shard.post("order-0001")
    assert_problem(answer, 503, "not_ready")
    assert "watermark" in document(answer)["detail"]
    assert shard.committer.failure is not None
