"""Ids that others own or have owned, and ids that are not here: what is asked and what is answered."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.replication import Replication
from gateway.settings import CommitSettings, LookUpSettings
from tests.fixtures.elsewhere import ring_of
from tests.fixtures.moved_ids import ANOTHERS, MOVED, OWNED, accepted_elsewhere, asked, stored, third_shard
from tests.fixtures.shard import (
    BODY,
    MERCHANT,
    POLL_S,
    InProcessShard,
    assert_problem,
    document,
    header,
    in_process_shard,
)
from tollgate.client_secrets import ClientSecrets
from tollgate.v1.payment_pb2 import Status

CLIENT_SECRETS = ClientSecrets(b"0123456789abcdef" * 2)


@pytest.fixture
async def shard(tmp_path: Path) -> InProcessShard:
    return third_shard(tmp_path)


@pytest.mark.parametrize("checkout_id", [MOVED, ANOTHERS], ids=["moved", "another's"])
@pytest.mark.parametrize("who", ["shard", "ledger"])
@pytest.mark.parametrize("version", [0, 2])
async def test_a_post_of_what_another_has_is_a_replay_or_a_conflict_and_stores_no_change(
    shard: InProcessShard, checkout_id: str, who: str, version: int
) -> None:
    payment = await accepted_elsewhere(shard, checkout_id, version)
    known = shard.ledger if who == "ledger" else shard.others[1 if checkout_id == MOVED else 0]
    known.has(payment)
    last = shard.committer.durable.last
    replayed = await shard.post(checkout_id)
    assert replayed.status == 200
    assert header(replayed, "idempotent-replayed") == "true"
    assert header(replayed, "etag") == f'"{version}"'
    assert document(replayed)["payment_checkout_id"] == checkout_id
    other = await shard.post(checkout_id, BODY | {"amount": 1})
    assert_problem(other, 422, "idempotency_key_reused")
    assert shard.committer.durable.last == last


async def test_a_post_of_its_own_id_asks_nobody(shard: InProcessShard) -> None:
    assert (await shard.post(OWNED)).status == 202
    assert (await shard.post(OWNED)).status == 200
    assert (await shard.get(OWNED)).status == 200
    assert asked(shard) == 0


async def test_a_moved_id_that_nobody_has_is_accepted_once_and_then_known_here(shard: InProcessShard) -> None:
    assert (await shard.post(MOVED)).status == 202
    assert (shard.ledger.asked, shard.others[1].asked, shard.others[0].asked) == (1, 1, 0)
    assert (await shard.post(MOVED)).status == 200
    assert_problem(await shard.post(MOVED, BODY | {"amount": 1}), 422, "idempotency_key_reused")
    assert (await shard.get(MOVED)).status == 200
    assert shard.ledger.asked == 1


async def test_two_at_once_for_a_moved_id_become_one_payment(shard: InProcessShard) -> None:
    answers = await asyncio.gather(*(shard.post(MOVED) for _ in range(5)))
    assert sorted(answer.status for answer in answers) == [200, 200, 200, 200, 202]


@pytest.mark.parametrize("silent", ["ledger", "shard", "both"])
async def test_who_cant_be_asked_delays_no_acceptance(shard: InProcessShard, silent: str) -> None:
    shard.ledger.silent = silent != "shard"
    shard.others[1].silent = silent != "ledger"
    assert (await shard.post(MOVED)).status == 202


async def test_who_hangs_delays_an_acceptance_by_a_bound(tmp_path: Path) -> None:
    shard = in_process_shard(tmp_path, look_ups=LookUpSettings(timeout_s=0.01))
    shard.ring.set(ring_of((0, 3), (0, 1, 3)))
    shard.others[1].held = asyncio.Event()
    assert (await shard.post(MOVED)).status == 202
    shard.ledger.held = asyncio.Event()
    assert_problem(await shard.get("checkout-nowhere"), 503, "owner_unavailable")


async def test_what_the_ledger_has_is_told_without_waiting_for_a_shard(shard: InProcessShard) -> None:
    shard.others[1].held = asyncio.Event()
    shard.ledger.has(await accepted_elsewhere(shard, MOVED, 4))
    assert header(await shard.get(MOVED), "etag") == '"4"'
    assert (await shard.post(MOVED)).status == 200


async def test_a_read_of_what_is_nowhere_is_404_only_when_everyone_said_no(shard: InProcessShard) -> None:
    everyone = [shard.ledger, shard.others[0], shard.others[1]]
    for silent in everyone:
        silent.silent = True
        assert_problem(await shard.get(MOVED), 503, "owner_unavailable")
        silent.silent = False
    assert_problem(await shard.get(MOVED), 404, "not_found")
    assert [known.asked for known in everyone] == [4, 4, 4]


async def test_what_only_a_dead_shard_has_is_told_once_its_tailer_has_shipped_it(tmp_path: Path) -> None:
    shard = in_process_shard(tmp_path, look_ups=LookUpSettings(shipped_within_s=10))
    shard.ring.set(ring_of((0, 3), (0, 1, 3)))
    shard.others[0].silent = True
    reading = asyncio.ensure_future(shard.get(ANOTHERS))
    while shard.ledger.asked < 2:
        await asyncio.sleep(POLL_S)
    shard.ledger.has(await accepted_elsewhere(shard, ANOTHERS, 1))
    assert header(await reading, "etag") == '"1"'
    assert shard.others[0].asked == 1


async def test_a_dead_shard_is_waited_for_within_a_bound_and_not_while_the_ledger_is_silent(
    tmp_path: Path,
) -> None:
    shard = in_process_shard(tmp_path, look_ups=LookUpSettings(shipped_within_s=0.01))
    shard.ring.set(ring_of((0, 3), (0, 1, 3)))
    shard.others[0].silent = True
    assert_problem(await shard.get(ANOTHERS), 503, "owner_unavailable")
    assert shard.ledger.asked == 3
    shard.ledger.silent = True
    assert_problem(await shard.get(ANOTHERS), 503, "owner_unavailable")
    assert shard.ledger.asked == 5


async def test_few_reads_wait_for_a_dead_shard_at_once(tmp_path: Path) -> None:
    shard = in_process_shard(tmp_path, look_ups=LookUpSettings(shipped_within_s=10))
    shard.ring.set(ring_of((0, 3), (0, 1, 3)))
    shard.others[0].silent = True
    waiting = [asyncio.ensure_future(shard.get(ANOTHERS)) for _ in range(64)]
    while shard.ledger.asked < 128:
        await asyncio.sleep(POLL_S)
    assert_problem(await shard.get(ANOTHERS), 503, "owner_unavailable")
    shard.ledger.has(await accepted_elsewhere(shard, ANOTHERS, 1))
    assert {response.status for response in await asyncio.gather(*waiting)} == {200}


async def test_alone_and_without_a_ledger_nothing_can_be_called_unknown(tmp_path: Path) -> None:
    shard = in_process_shard(tmp_path)
    assert_problem(await shard.get(OWNED), 404, "not_found")
    shard.ledger.silent = True
    assert_problem(await shard.get(ANOTHERS), 503, "owner_unavailable")
    assert_problem(await shard.get("no-id!"), 404, "not_found")


async def test_a_no_is_not_kept_since_a_post_to_a_former_owner_may_be_on_its_way(
    shard: InProcessShard,
) -> None:
    assert_problem(await shard.get(MOVED), 404, "not_found")
    shard.others[1].has(await accepted_elsewhere(shard, MOVED))
    assert (await shard.get(MOVED)).status == 200
    assert (await shard.post(MOVED)).status == 200


async def test_a_no_hides_nothing_that_is_accepted_here(shard: InProcessShard) -> None:
    assert (await shard.get(MOVED)).status == 404
    assert (await shard.post(MOVED)).status == 202
    assert (await shard.get(MOVED)).status == 200


async def test_a_ring_that_changes_meanwhile_leaves_a_read_unsure(shard: InProcessShard) -> None:
    shard.ledger.held = asyncio.Event()
    reading = asyncio.ensure_future(shard.get(MOVED))
    while not shard.ledger.asked:
        await asyncio.sleep(0)
    shard.ring.set(ring_of((0, 3, 4), (0, 3), (0, 1, 3)))
    shard.ledger.held.set()
    assert_problem(await reading, 503, "owner_unavailable")


async def test_what_arrives_during_the_look_up_is_told(shard: InProcessShard) -> None:
    shard.ledger.held, shard.ledger.silent = asyncio.Event(), True
    reading = asyncio.ensure_future(shard.get(OWNED))
    while not shard.ledger.asked:
        await asyncio.sleep(0)
    assert (await shard.post(OWNED)).status == 202
    shard.ledger.held.set()
    assert (await reading).status == 200


async def test_the_newest_version_is_told(shard: InProcessShard) -> None:
    shard.ledger.silent = True
    shard.others[0].has(await accepted_elsewhere(shard, MOVED, 1))
    shard.others[1].has(await accepted_elsewhere(shard, MOVED, 2))
    assert header(await shard.get(MOVED), "etag") == '"2"'
    shard.ledger.silent = False
    shard.ledger.has(await accepted_elsewhere(shard, MOVED, 3))
    shard.clock.advance(2)
    assert header(await shard.get(ANOTHERS), "etag") is None
    assert header(await shard.get(MOVED), "etag") == '"2"', "kept here by now: its news come by themselves"


async def test_an_answer_about_another_payment_is_no_answer(shard: InProcessShard) -> None:
    shard.ledger.payments[MERCHANT, MOVED] = await accepted_elsewhere(shard, ANOTHERS, 2)
    assert_problem(await shard.get(MOVED), 503, "owner_unavailable")


async def test_a_read_from_elsewhere_is_as_any_other(shard: InProcessShard) -> None:
    payment = await accepted_elsewhere(shard, ANOTHERS, 2)
    payment.customer_id = "customer-1"
    shard.ledger.has(payment)
    fresh = await shard.get(ANOTHERS)
    assert document(fresh)["customer_id"] == "customer-1"
    assert header(fresh, "retry-after") == "2"
    assert (await shard.get(ANOTHERS, ("If-None-Match", '"2"'))).status == 304
    secret = CLIENT_SECRETS.secret(MERCHANT, ANOTHERS)
    browser = await shard.get(ANOTHERS, query=f"client_secret={secret}")
    assert browser.status == 200
    assert header(browser, "access-control-allow-origin") == "*"
    assert not {"customer_id", "metadata"} & set(document(browser))
    headed = await shard.send("HEAD", f"/v1/payments/{ANOTHERS}", ("Authorization", "Bearer wrong"))
    assert headed.status == 503, "an unknown key can't be called wrong before the first copy"
    payment.merchant = "another"
    shard.ledger.payments.clear()
    shard.ledger.has(payment)
    assert_problem(await shard.get(ANOTHERS), 404, "not_found")


async def test_what_is_found_is_kept_by_its_owner_alone_and_only_once_decided(shard: InProcessShard) -> None:
    shard.ledger.has(await accepted_elsewhere(shard, MOVED, 2))
    shard.ledger.has(await accepted_elsewhere(shard, ANOTHERS, 2))
    shard.others[0].has(await accepted_elsewhere(shard, OWNED, 0))
    for checkout_id in (MOVED, ANOTHERS, OWNED):
        assert (await shard.get(checkout_id)).status == 200
    kept = stored(shard, MOVED)
    assert kept is not None
    assert (kept.version, kept.status) == (2, Status.STATUS_PROCESSING)
    assert stored(shard, ANOTHERS) is None, "its news go to another shard"
    assert stored(shard, OWNED) is None, "nothing is decided of it: it would be without its change"


async def test_what_would_leave_again_at_once_is_not_kept(shard: InProcessShard) -> None:
    settled = await accepted_elsewhere(shard, MOVED, 2)
    settled.status = Status.STATUS_SUCCEEDED
    settled.updated_at_us = shard.clock.now_us() - 31 * 24 * 3600 * 1_000_000
    shard.ledger.has(settled)
    assert (await shard.get(MOVED)).status == 200
    assert stored(shard, MOVED) is None


async def test_more_look_ups_than_the_bound_are_not_made(tmp_path: Path) -> None:
    shard = in_process_shard(tmp_path, look_ups=LookUpSettings(in_flight_max=2))
    shard.ring.set(ring_of((0, 3), (0, 1, 3)))
    shard.ledger.held = asyncio.Event()
    waiting = [asyncio.ensure_future(shard.get(f"checkout-held-{n}")) for n in range(2)]
    while shard.ledger.asked < 2:
        await asyncio.sleep(POLL_S)
    assert_problem(await shard.get("checkout-beyond"), 503, "owner_unavailable")
    assert (await shard.post(MOVED)).status == 202, "what can't be asked is accepted"
    assert shard.ledger.asked == 2
    shard.ledger.held.set()
    for reading in waiting:
        assert_problem(await reading, 404, "not_found")
    assert b'tollgate_look_ups_total{outcome="refused",question="deny"} 1.0' in shard.metrics.render()
    assert b'tollgate_look_ups_total{outcome="refused",question="accept"} 1.0' in shard.metrics.render()


async def test_with_ack_replicated_the_word_of_another_shard_needs_no_proof_of_this_one(
    tmp_path: Path,
) -> None:
    source = in_process_shard(tmp_path)
    payment = await accepted_elsewhere(source, MOVED)
    folder = tmp_path / "replicated"
    folder.mkdir()
    shard = in_process_shard(folder, commit=CommitSettings(ack="replicated"))
    assert isinstance(shard.replication, Replication)
    shard.ring.set(ring_of((0, 3), (0, 1, 3)))
    shard.others[1].has(payment)
    assert (await shard.post(MOVED)).status == 200
    assert (await shard.get(MOVED)).status == 200


async def test_a_defect_while_asking_answers_one_request(
    shard: InProcessShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_args: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(shard.ledger, "find_payment", broken)
    assert (await shard.get(MOVED)).status == 500
    monkeypatch.undo()
    assert (await shard.get(MOVED)).status == 404
