"""Real shards, a ring that changes, and a Ledger that knows what it is told: what clients then hear."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import grpc
import pytest

from tests.fixtures.live_shard import Answer, LiveShard
from tests.fixtures.live_shards import ShardRing, shard_ring
from tests.fixtures.shard import MERCHANT
from tests.fixtures.waiting import wait_until
from tollgate.ring_file import read_ring_file
from tollgate.v1.payment_pb2 import Capture, Payment, Status
from tollgate.v1.shard_pb2 import GetPaymentRequest
from tollgate.v1.shard_pb2_grpc import ShardStub

# A hanging shard is waited for so long; a dead one not at all.
_LOOK_UP_S = 0.4


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShardRing]:
    folder = tmp_path_factory.mktemp("ring")
    with shard_ring(folder, 3, 2, TOLLGATE_LOOK_UPS__TIMEOUT_S=str(_LOOK_UP_S)) as ring:
        yield ring
        for shard in ring.shards:
            assert "Traceback" not in shard.log.read_text()


@pytest.fixture
def trio(three: ShardRing) -> ShardRing:
    """Three shards, of which 0 and 1 are on the ring. Each test has ids of its own."""
    three.begin_anew(0, 1)
    return three


def now_us() -> int:
    return time.time_ns() // 1000


def ids_of(ring: ShardRing, shard: int, name: str, count: int) -> list[str]:
    found = (i for n in range(10_000) if ring.owner(i := f"{name}-{n:05}") == shard)
    return list(islice(found, count))


def decided(ring: ShardRing, payment: Payment, version: int, status: Status.ValueType) -> None:
    """From now on the Ledger knows the payment so."""
    payment.version, payment.status = version, status
    ring.ledger.payments[payment.merchant, payment.checkout_id] = payment


def stored(shard: LiveShard, checkout_id: str) -> Payment | None:
    """As the shard tells it to others."""
    with grpc.insecure_channel(shard.entry.grpc) as channel:
        question = GetPaymentRequest(merchant=MERCHANT, checkout_id=checkout_id)
        answer = ShardStub(channel).GetPayment(question, timeout=5)
    return answer.payment if answer.HasField("payment") else None


def assert_problem(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.body["code"]) == (status, code)
    if status == 503:
        assert int(answer.headers["retry-after"]) >= 1


def test_moved_ids_are_answered_by_whoever_has_them_through_two_changes_of_the_ring(trio: ShardRing) -> None:
    zero, one, two = trio.shards
    old = [(trio.shards[shard], i) for shard in (0, 1) for i in ids_of(trio, shard, "old", 60)]
    for shard, checkout_id in old:
        assert shard.post(checkout_id).status == 202

    trio.change(0, 1, 2, left_at_us=now_us())
    moved = [(shard, i) for shard, i in old if trio.owner(i) == 2]
    assert len(moved) > 10
    for shard, checkout_id in moved:
        replayed = two.post(checkout_id)
        assert (replayed.status, replayed.headers["idempotent-replayed"]) == (200, "true")
        assert_problem(two.post(checkout_id, amount=1), 422, "idempotency_key_reused")
        assert two.get(checkout_id).body == shard.get(checkout_id).body == replayed.body
    found = zero.metric('tollgate_look_ups_total{outcome="found",question="accept"}')
    stayed = [(shard, i) for shard, i in old if trio.owner(i) != 2]
    for shard, checkout_id in stayed:
        assert shard.post(checkout_id).status == 200
    assert zero.metric('tollgate_look_ups_total{outcome="found",question="accept"}') == found, "never moved"

    new = ids_of(trio, 2, "new", 20)
    for checkout_id in new:
        assert two.post(checkout_id).status == 202
        assert zero.get(checkout_id).status == 200, "a request may still come by the former ring"
        assert one.post(checkout_id).status == 200

    trio.change(0, 1, left_at_us=now_us())
    for checkout_id in new:
        owner = trio.shards[trio.owner(checkout_id)]
        assert owner.post(checkout_id).status == 200
        assert_problem(owner.post(checkout_id, amount=1), 422, "idempotency_key_reused")
        assert owner.get(checkout_id).status == 200
    for shard in trio.shards:
        assert_problem(shard.get("nowhere-at-all"), 404, "not_found")
    two.kill()
    for shard in (zero, one):
        assert_problem(shard.get("nowhere-at-all-2"), 503, "owner_unavailable")
    ring = read_ring_file(trio.file)
    trio.change(0, 1, left_at_us=now_us(), retired=(2,))
    assert read_ring_file(trio.file).version == ring.version + 1
    for shard in (zero, one):
        assert_problem(shard.get("nowhere-at-all-2"), 404, "not_found")


def test_without_a_ledger_what_a_shard_has_is_told_and_nothing_is_called_unknown(trio: ShardRing) -> None:
    zero, one, _two = trio.shards
    [checkout_id] = ids_of(trio, 0, "here", 1)
    assert zero.post(checkout_id).status == 202
    trio.ledger.down = True
    assert one.get(checkout_id).status == 200
    assert one.post(checkout_id).status == 200
    assert_problem(one.post(checkout_id, amount=2), 422, "idempotency_key_reused")
    assert_problem(zero.get("nowhere-at-all"), 503, "owner_unavailable")
    trio.ledger.down = False
    assert_problem(zero.get("nowhere-at-all"), 404, "not_found")


def test_a_dead_owners_ids_are_accepted_by_the_next_and_it_answers_for_them_when_it_is_back(
    trio: ShardRing,
) -> None:
    zero, one, two = trio.shards
    trio.change(0, 1, 2, left_at_us=now_us())
    names = {shard.entry.name: shard for shard in trio.shards}
    checkout_ids = ids_of(trio, 1, "orphan", 20)
    one.kill()
    for checkout_id in checkout_ids:
        owner, following, last = (
            names[name] for name in read_ring_file(trio.file).ring().preference(checkout_id, 3)
        )
        assert owner is one
        assert following.post(checkout_id).status == 202
        assert following.post(checkout_id).status == 200
        assert last.get(checkout_id).status == 200
        assert last.post(checkout_id, amount=7).status == 202, "its owner is away: intake arbitrates"
    assert_problem(zero.get("nowhere-at-all"), 503, "owner_unavailable")

    one.start()
    one.wait_until_known()
    wait_until(lambda: zero.get("nowhere-at-all").status == 404, "the shard can be asked again")
    for checkout_id in checkout_ids:
        assert one.get(checkout_id).status == 200
        assert two.get(checkout_id).status == 200


def test_a_frozen_shard_delays_others_by_a_bound_and_makes_nothing_unknown(trio: ShardRing) -> None:
    zero, one, two = trio.shards
    moved = ids_of(trio, 1, "frozen", 40)
    for checkout_id in moved:
        assert one.post(checkout_id).status == 202
    trio.change(0, 1, 2, left_at_us=now_us())
    moved = [i for i in moved if trio.owner(i) == 2]
    assert moved
    silent = 'tollgate_look_ups_total{outcome="silent",question="accept"}'
    before = two.metric(silent)
    one.freeze()
    with ThreadPoolExecutor(len(moved)) as threads:
        reads = list(threads.map(two.get, moved))
        posts = list(threads.map(two.post, moved))
    for answer in reads:
        assert_problem(answer, 503, "owner_unavailable")
    assert {answer.status for answer in posts} == {202}
    assert two.metric(silent) == before + len(moved)
    assert zero.status_of("/readyz") == two.status_of("/readyz") == 200
    one.thaw()
    wait_until(lambda: two.get("nowhere-at-all").status == 404, "the shard answers again")


def test_what_the_ledger_knows_is_told_and_kept_and_heals_what_stands_still(tmp_path: Path) -> None:
    with shard_ring(tmp_path, 2, 2, TOLLGATE_LOOK_UPS__REFRESH_AFTER_S="0.2") as ring:
        zero, one = ring.shards
        [gone] = ids_of(ring, 0, "gone", 1)
        decided(ring, snapshot(gone), 3, Status.STATUS_PROCESSING)
        assert zero.get(gone).headers["etag"] == one.get(gone).headers["etag"] == '"3"'
        wait_until(lambda: stored(zero, gone) is not None, "its owner keeps it")
        assert stored(one, gone) is None, "its news do not come here"

        [still] = ids_of(ring, 1, "still", 1)
        assert one.post(still).status == 202
        accepted = stored(one, still)
        assert accepted is not None
        decided(ring, accepted, 2, Status.STATUS_SUCCEEDED)
        wait_until(lambda: one.get(still).body["status"] == "succeeded", "a read has refreshed it")
        wait_until(lambda: (stored(one, still) or accepted).version == 2, "and it is stored")
        assert one.post(still).body["status"] == "succeeded"


def snapshot(checkout_id: str) -> Payment:
    now = now_us()
    return Payment(
        merchant=MERCHANT,
        checkout_id=checkout_id,
        amount=5,
        currency="EUR",
        capture=Capture.CAPTURE_AUTOMATIC,
        fingerprint=b"f" * 32,
        created_at_us=now,
        updated_at_us=now,
    )


def test_what_kafka_has_not_confirmed_is_told_to_no_other_shard_either(tmp_path: Path) -> None:
    settings = {"TOLLGATE_COMMIT__ACK": "replicated", "TOLLGATE_COMMIT__ACK_WAIT_S": "0.2"}
    with shard_ring(tmp_path, 2, 2, **settings) as ring:
        zero, one = ring.shards
        [checkout_id] = ids_of(ring, 0, "unproven", 1)
        assert_problem(zero.post(checkout_id), 503, "not_ready")
        assert_problem(zero.get(checkout_id), 503, "not_ready")
        assert_problem(one.get(checkout_id), 503, "owner_unavailable")


def test_a_ring_file_that_breaks_later_changes_nothing_and_one_that_is_not_there_is_said_at_the_start(
    trio: ShardRing,
) -> None:
    zero, one, _two = trio.shards
    [checkout_id] = ids_of(trio, 0, "steady", 1)
    assert zero.post(checkout_id).status == 202
    good = trio.file.read_bytes()
    trio.file.write_text("{")
    wait_until(lambda: "the last ring stands" in one.log.read_text(), "the broken file is noticed")
    assert one.get(checkout_id).status == 200
    one.kill()
    one.start()
    assert one.process is not None
    assert one.process.wait(15) == 1, "it would not know whom to ask"
    assert "Restore it" in one.log.read_text()
    trio.file.unlink()
    one.start()
    assert one.process.wait(15) == 2
    assert "TOLLGATE_RING_FILE" in one.log.read_text()
    trio.file.write_bytes(good)
    one.process = None
