"""ack=replicated: what is told before Kafka's proof, which is nothing, and what ends the waiting."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import BeyondDurable, NotReady, StoreFailed, WrongOpening
from gateway.http.message import Response
from gateway.planner import Acknowledgement, Snapshot, StatusBatch
from gateway.replication import Replication
from gateway.settings import CommitSettings
from gateway.store.memory import Disk
from tests.fixtures.shard import (
    BODY,
    MERCHANT,
    HeldDisk,
    InProcessShard,
    assert_problem,
    document,
    header,
    in_process_shard,
)
from tollgate.ids import payment_key
from tollgate.v1.payment_pb2 import Payment, Status

WAIT_S = 5.0


def replicated_shard(tmp_path: Path, disk: Disk | None = None, **commit: Any) -> InProcessShard:
    commit_settings = CommitSettings(ack="replicated", ack_wait_s=WAIT_S, **commit)
    return in_process_shard(tmp_path, disk=disk, commit=commit_settings)


def replication(shard: InProcessShard) -> Replication:
    assert shard.replication is not None
    return shard.replication


def prove(shard: InProcessShard, sequence: int) -> None:
    """As the tailer does when Kafka has reported everything up to `sequence`."""
    _, incarnation, epoch = shard.committer.identity
    replication(shard).confirmed(Acknowledgement(incarnation, epoch, sequence))


async def post(shard: InProcessShard, checkout_id: str, body: object = None) -> asyncio.Task[Response]:
    """Started, and as far as it comes by itself."""
    task = asyncio.create_task(shard.post(checkout_id, body))
    for _ in range(10):
        await asyncio.sleep(0)
    return task


def pass_time(shard: InProcessShard, seconds: float) -> None:
    shard.clock.advance(seconds)
    replication(shard).expire()


async def fall_silent(shard: InProcessShard) -> None:
    """order-0001 is proven; order-0002 has waited in vain."""
    proven = await post(shard, "order-0001")
    prove(shard, 1)
    assert (await proven).status == 202
    unproven = await post(shard, "order-0002")
    pass_time(shard, WAIT_S)
    assert_problem(await unproven, 503, "not_ready")


async def test_a_202_is_never_sent_before_the_proof(tmp_path: Path) -> None:
    shard = replicated_shard(tmp_path)
    first, second = await post(shard, "order-0001"), await post(shard, "order-0002")
    assert shard.committer.durable.last == 2, "both are durable here"
    assert not first.done()
    prove(shard, 1)
    assert (await first).status == 202
    assert not second.done()
    prove(shard, 2)
    assert (await second).status == 202
    assert replication(shard).waiting == 0


async def test_without_the_setting_nothing_waits_for_kafka(tmp_path: Path) -> None:
    shard = in_process_shard(tmp_path)
    assert shard.replication is None
    assert (await shard.post("order-0001")).status == 202


async def test_a_proof_that_came_before_the_commit_was_told_counts(tmp_path: Path) -> None:
    shard = in_process_shard(tmp_path, commit=CommitSettings(ack="replicated"), flusher=HeldDisk)
    posted = await post(shard, "order-0001")
    with pytest.raises(BeyondDurable):
        prove(shard, 1)  # what is not on disk here can't have been read by the tailer
    disk = shard.committer._flusher
    assert isinstance(disk, HeldDisk)
    disk.complete()
    prove(shard, 1)
    assert (await posted).status == 202


async def test_the_proof_needs_no_fsync_of_its_own(tmp_path: Path) -> None:
    shard = in_process_shard(tmp_path, commit=CommitSettings(ack="replicated"), flusher=HeldDisk)
    disk = shard.committer._flusher
    assert isinstance(disk, HeldDisk)
    posted = await post(shard, "order-0001")
    disk.complete()
    await post(shard, "order-0002")
    prove(shard, 1)
    assert (await posted).status == 202
    assert len(disk.pending) == 1, "only that of the second payment"


@pytest.mark.parametrize("wrong", ["epoch before", "epoch after", "incarnation"])
async def test_the_word_about_another_opening_of_the_store_is_no_proof(tmp_path: Path, wrong: str) -> None:
    shard = replicated_shard(tmp_path)
    posted = await post(shard, "order-0001")
    _, incarnation, epoch = shard.committer.identity
    proof = {
        "epoch before": Acknowledgement(incarnation, epoch - 1, 1),
        "epoch after": Acknowledgement(incarnation, epoch + 1, 1),
        "incarnation": Acknowledgement(b"\1" * 16, epoch, 1),
    }[wrong]
    with pytest.raises(WrongOpening):
        replication(shard).confirmed(proof)
    assert not posted.done()
    prove(shard, 1)
    assert (await posted).status == 202


async def test_a_proof_beyond_the_log_is_refused_and_proves_nothing(tmp_path: Path) -> None:
    shard = replicated_shard(tmp_path)
    posted = await post(shard, "order-0001")
    with pytest.raises(BeyondDurable):
        prove(shard, 2)
    assert not posted.done()
    prove(shard, 1)
    await posted


async def test_an_older_proof_after_a_newer_one_takes_nothing_back(tmp_path: Path) -> None:
    shard = replicated_shard(tmp_path)
    posted = [await post(shard, f"order-000{n}") for n in (1, 2)]
    prove(shard, 2)
    prove(shard, 1)
    assert [answer.status for answer in await asyncio.gather(*posted)] == [202, 202]
    assert (await shard.get("order-0002")).status == 200


async def test_the_wait_is_bounded_and_the_payment_stands(tmp_path: Path) -> None:
    shard = replicated_shard(tmp_path)
    posted = await post(shard, "order-0001")
    pass_time(shard, WAIT_S - 0.1)
    assert not posted.done()
    pass_time(shard, 0.1)
    answer = await posted
    assert_problem(answer, 503, "not_ready")
    assert "may stand: retry with the same id" in document(answer)["detail"]
    prove(shard, 1)
    again = await shard.post("order-0001")
    assert (again.status, header(again, "idempotent-replayed")) == (200, "true")


async def test_each_waits_for_its_own_time_and_not_for_that_of_the_first(tmp_path: Path) -> None:
    shard = replicated_shard(tmp_path)
    first = await post(shard, "order-0001")
    pass_time(shard, WAIT_S / 2)
    second = await post(shard, "order-0002")
    pass_time(shard, WAIT_S / 2)
    assert (await first).status == 503
    assert not second.done()
    prove(shard, 2)
    assert (await second).status == 202


async def test_a_replay_waits_for_the_same_proof(tmp_path: Path) -> None:
    shard = replicated_shard(tmp_path)
    first, replay = await post(shard, "order-0001"), await post(shard, "order-0001")
    assert not replay.done()
    prove(shard, 1)
    assert [(await first).status, (await replay).status] == [202, 200]


async def test_so_does_a_conflict_because_it_tells_of_the_payment(tmp_path: Path) -> None:
    shard = replicated_shard(tmp_path)
    await post(shard, "order-0001")
    conflict = await post(shard, "order-0001", BODY | {"amount": 7})
    assert not conflict.done()
    prove(shard, 1)
    assert_problem(await conflict, 422, "idempotency_key_reused")


async def test_a_replay_of_what_is_proven_waits_for_nobody(tmp_path: Path) -> None:
    shard = replicated_shard(tmp_path)
    first = await post(shard, "order-0001")
    prove(shard, 1)
    await first
    other = await post(shard, "order-0002")
    assert (await shard.post("order-0001")).status == 200
    assert (await shard.post("order-0001", BODY | {"amount": 7})).status == 422
    assert not other.done()
    prove(shard, 2)
    await other


async def test_a_read_tells_nothing_of_a_payment_before_its_proof(tmp_path: Path) -> None:
    shard = replicated_shard(tmp_path)
    posted = await post(shard, "order-0001")
    assert_problem(await shard.get("order-0001"), 503, "not_ready")
    assert_problem(await shard.get("order-0001", ("If-None-Match", "*")), 503, "not_ready")
    assert_problem(await shard.get("order-0009"), 404, "not_found")
    prove(shard, 1)
    assert (await posted).status == 202
    assert (await shard.get("order-0001")).status == 200


async def test_a_shard_without_room_tells_of_no_payment_before_its_proof_either(tmp_path: Path) -> None:
    shard = replicated_shard(tmp_path)
    posted = await post(shard, "order-0001")
    shard.health.refusal = "The disk is nearly full."
    replay = await post(shard, "order-0001")
    conflict = await post(shard, "order-0001", BODY | {"amount": 7})
    assert not replay.done()
    assert not conflict.done()
    prove(shard, 1)
    assert [(await answer).status for answer in (posted, replay, conflict)] == [202, 200, 422]


async def test_what_has_come_back_from_postgres_needs_no_proof(tmp_path: Path) -> None:
    shard = replicated_shard(tmp_path)
    first = await post(shard, "order-0001")
    key = payment_key(MERCHANT, "order-0001")
    stored = shard.committer.read(key)
    assert stored is not None
    payment = Payment.FromString(stored)
    payment.version, payment.status = 1, Status.STATUS_PROCESSING
    await shard.committer.commit(StatusBatch((Snapshot(key, 1, payment.SerializeToString()),)))
    assert (await shard.get("order-0001")).status == 200
    assert not first.done(), "its own 202 is the word about its own change"
    prove(shard, 1)
    assert (await first).status == 202


async def test_while_kafka_is_silent_nothing_new_is_stored_and_nobody_waits(tmp_path: Path) -> None:
    shard = replicated_shard(tmp_path)
    await fall_silent(shard)
    new = await shard.post("order-0003")
    assert_problem(new, 503, "not_ready")
    assert "Nothing was stored" in document(new)["detail"]
    assert shard.committer.durable.last == 2
    assert_problem(await shard.post("order-0002"), 503, "not_ready")
    assert (await shard.post("order-0001")).status == 200
    assert (await shard.get("order-0001")).status == 200


async def test_the_first_proof_ends_the_silence(tmp_path: Path) -> None:
    shard = replicated_shard(tmp_path)
    await fall_silent(shard)
    prove(shard, 2)
    assert (await shard.post("order-0002")).status == 200
    posted = await post(shard, "order-0003")
    prove(shard, 3)
    assert (await posted).status == 202


async def test_who_waits_is_bounded_in_number(tmp_path: Path) -> None:
    shard = replicated_shard(tmp_path, ack_waiting_max=2)
    waiting = [await post(shard, f"order-000{n}") for n in (1, 2)]
    refused = await shard.post("order-0003")
    assert_problem(refused, 503, "overloaded")
    assert shard.committer.durable.last == 2, "nothing of it was stored"
    prove(shard, 2)
    assert [answer.status for answer in await asyncio.gather(*waiting)] == [202, 202]
    posted = await post(shard, "order-0003")
    prove(shard, 3)
    assert (await posted).status == 202


async def test_who_waits_is_bounded_in_memory(tmp_path: Path) -> None:
    shard = replicated_shard(tmp_path, ring_bytes_max=1024 * 1024)
    body = BODY | {"metadata": {str(n): "x" * 500 for n in range(20)}}
    for number in range(200):
        await post(shard, f"order-{number:04}", body)
        if replication(shard).waiting <= number:
            break
    assert 90 < replication(shard).waiting < 110, "of some 10 KB each"
    assert_problem(await shard.post("order-9999", body), 503, "overloaded")
    replication(shard).abandon("the end of the test")


async def test_a_store_that_fails_lets_nobody_wait(tmp_path: Path) -> None:
    failing: list[str] = []

    def fault(call: str) -> None:
        if call in failing:
            raise StoreFailed("IO error")

    shard = in_process_shard(tmp_path, commit=CommitSettings(ack="replicated"), fault=fault)
    waiting = await post(shard, "order-0001")
    failing += ["write", "flush"]
    assert_problem(await shard.post("order-0002"), 503, "not_ready")
    assert_problem(await waiting, 503, "not_ready")
    assert replication(shard).waiting == 0
    with pytest.raises(NotReady):
        prove(shard, 1)


async def test_a_restart_with_unproven_payments_tells_of_none_before_its_proof(tmp_path: Path) -> None:
    disk = Disk()
    before = replicated_shard(tmp_path, disk)
    proven, unproven = await post(before, "order-0001"), await post(before, "order-0002")
    prove(before, 1)
    await replication(before).keep()
    assert (await proven).status == 202
    after = replicated_shard(tmp_path, disk)
    assert (await after.get("order-0001")).status == 200
    assert_problem(await after.get("order-0002"), 503, "not_ready")
    replay = await post(after, "order-0002")
    with pytest.raises(WrongOpening):
        replication(after).confirmed(Acknowledgement(*before.committer.identity[1:], 2))
    assert not replay.done()
    prove(after, 2)
    assert (await replay).status == 200
    unproven.cancel()


async def test_what_was_accepted_durable_is_told_after_the_proof_once_that_is_asked_for(
    tmp_path: Path,
) -> None:
    disk = Disk()
    assert (await in_process_shard(tmp_path, disk=disk).post("order-0001")).status == 202
    shard = replicated_shard(tmp_path, disk)
    assert_problem(await shard.get("order-0001"), 503, "not_ready")
    prove(shard, 1)
    assert (await shard.get("order-0001")).status == 200


async def test_the_proof_is_stored_for_the_next_start(tmp_path: Path) -> None:
    shard = replicated_shard(tmp_path)
    posted = await post(shard, "order-0001")
    prove(shard, 1)
    await posted
    assert shard.committer.durable.acknowledged == 0
    await replication(shard).keep()
    assert shard.committer.durable.acknowledged == 1


@settings(max_examples=60, deadline=None)
@given(st.data())
async def test_against_a_model_nothing_is_told_early_or_twice_or_never(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Requests, proofs and time in any order: a good answer only when its change is proven, and one each."""
    shard = replicated_shard(tmp_path_factory.mktemp("model"), ack_waiting_max=6)
    proven = 0
    requests: list[tuple[str, asyncio.Task[Response]]] = []
    checked: set[int] = set()
    for _ in range(data.draw(st.integers(1, 25))):
        match data.draw(st.sampled_from(["post", "post", "prove", "time"])):
            case "post":
                checkout_id = f"order-{data.draw(st.integers(0, 9)):04}"
                amount = data.draw(st.sampled_from([1200, 1201]))
                requests.append((checkout_id, await post(shard, checkout_id, BODY | {"amount": amount})))
            case "prove":
                proven = data.draw(st.integers(proven, shard.committer.durable.last))
                prove(shard, proven)
            case "time":
                pass_time(shard, data.draw(st.sampled_from([1.0, 2.5, 5.0])))
        await asyncio.sleep(0)
        for number, (checkout_id, request) in enumerate(requests):
            if request.done() and number not in checked:
                checked.add(number)
                assert request.result().status == 503 or sequence_of(shard, checkout_id) <= proven
        assert replication(shard).waiting == sum(not request.done() for _, request in requests) <= 6
    pass_time(shard, WAIT_S)
    await asyncio.wait_for(asyncio.gather(*(request for _, request in requests)), 5)
    assert replication(shard).waiting == 0


def sequence_of(shard: InProcessShard, checkout_id: str) -> int:
    stored = shard.committer.read(payment_key(MERCHANT, checkout_id))
    assert stored is not None
    return Payment.FromString(stored).change_sequence
