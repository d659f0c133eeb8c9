"""Payments that are here and may have moved unheard: when the Ledger is asked before they are told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.planner import StatusBatch
from gateway.snapshots import snapshot_of
from tests.fixtures.elsewhere import ring_of
from tests.fixtures.moved_ids import MOVED, OWNED, accepted_elsewhere, asked, stored, third_shard
from tests.fixtures.shard import POLL_S, InProcessShard, document, header
from tollgate.v1.payment_pb2 import Payment, Status


@pytest.fixture
async def shard(tmp_path: Path) -> InProcessShard:
    return third_shard(tmp_path)


async def test_an_open_payment_that_stands_still_is_refreshed_every_30_s(shard: InProcessShard) -> None:
    await shard.post(OWNED)
    shard.clock.advance(29)
    assert header(await shard.get(OWNED), "etag") == '"0"'
    assert asked(shard) == 0
    shard.clock.advance(1)
    shard.ledger.silent = True
    for _ in range(3):
        assert header(await shard.get(OWNED), "etag") == '"0"', "nobody can say: it is told as it is"
    assert shard.ledger.asked == 1
    shard.ledger.silent = False
    shard.clock.advance(30)
    news = await accepted_elsewhere(shard, OWNED, 5)
    news.status = Status.STATUS_SUCCEEDED
    shard.ledger.has(news)
    assert header(await shard.get(OWNED), "etag") == '"5"'
    kept = stored(shard, OWNED)
    assert kept is not None
    assert kept.version == 5
    shard.clock.advance(300)
    assert header(await shard.get(OWNED), "etag") == '"5"'
    assert shard.ledger.asked == 2, "what is settled is not looked up"


async def test_what_was_decided_before_this_shard_began_is_refreshed_at_its_first_read(
    shard: InProcessShard,
) -> None:
    """While it was away others answered for it, and may have told more than it has heard of."""
    before = await accepted_elsewhere(shard, MOVED, 2)
    before.updated_at_us = shard.clock.now_us() - 1
    shard.ledger.has(before)
    assert header(await shard.get(MOVED), "etag") == '"2"'
    kept = stored(shard, MOVED)
    assert kept is not None
    news = await accepted_elsewhere(shard, MOVED, 3)
    news.status = Status.STATUS_AUTHORIZED
    shard.ledger.has(news)
    assert header(await shard.get(MOVED), "etag") == '"3"', "the Ledger was asked at once, not after 30 s"
    known = shard.ledger.asked
    assert header(await shard.get(MOVED), "etag") == '"3"'
    assert shard.ledger.asked == known


async def settled_here(shard: InProcessShard, version: int, updated_at_us: int) -> Payment:
    """MOVED, at an end when its status came here."""
    payment = await accepted_elsewhere(shard, MOVED, version)
    payment.status, payment.updated_at_us = Status.STATUS_SUCCEEDED, updated_at_us
    assert await shard.committer.submit(StatusBatch((snapshot_of(payment),))) is not None
    return payment


@pytest.mark.parametrize("ask", ["GET", "POST"])
async def test_what_was_settled_here_before_another_owned_its_id_is_refreshed_first(
    shard: InProcessShard, ask: str
) -> None:
    """The other heard of the refund and told it, and is gone."""
    back_us = shard.clock.now_us()
    before = await settled_here(shard, 3, back_us - 1_000_000_000)
    shard.ring.set(ring_of((0, 3), (0, 1, 3), (0, 3), left_at_us=back_us))
    refunded = Payment.FromString(before.SerializeToString())
    refunded.version, refunded.status = 5, Status.STATUS_REFUNDED
    shard.ledger.has(refunded)
    shard.clock.advance(100)
    known = asked(shard)
    answer = await (shard.get(MOVED) if ask == "GET" else shard.post(MOVED))
    assert (answer.status, document(answer)["version"]) == (200, 5)
    assert header(await shard.get(MOVED), "etag") == '"5"'
    assert asked(shard) == known + 1


async def test_what_was_settled_while_this_shard_owned_its_id_asks_nobody(shard: InProcessShard) -> None:
    came_us = shard.clock.now_us()
    shard.ring.set(ring_of((0, 3), (0, 1, 3), left_at_us=came_us))
    shard.clock.advance(100)
    await settled_here(shard, 3, came_us + 10_000_000)
    known = asked(shard)
    assert header(await shard.get(MOVED), "etag") == '"3"'
    assert (await shard.post(MOVED)).status == 200
    assert asked(shard) == known


async def test_who_stands_in_for_an_owner_tells_no_settled_payment_unasked(shard: InProcessShard) -> None:
    """What it has of another's payment it was given once, and may not have heard of since."""
    payment = await settled_here(shard, 3, shard.clock.now_us())
    shard.ring.set(ring_of((0, 1, 3)))
    payment.version = 4
    shard.ledger.has(payment)
    assert header(await shard.get(MOVED), "etag") == '"4"'


async def test_a_silent_ledger_is_asked_for_one_open_payment_a_second_and_for_few_at_a_time(
    shard: InProcessShard,
) -> None:
    ids = [f"checkout-still-{n:02}" for n in range(64)]
    still = [checkout_id for checkout_id in ids if (await shard.post(checkout_id)).status == 202]
    asked_for_posts = shard.ledger.asked
    shard.clock.advance(31)
    shard.ledger.silent = True
    for checkout_id in still:
        assert (await shard.get(checkout_id)).status == 200
    assert shard.ledger.asked == asked_for_posts + 1
    shard.clock.advance(2)
    shard.ledger.silent = False
    shard.ledger.held = asyncio.Event()
    reading = [asyncio.ensure_future(shard.get(checkout_id)) for checkout_id in still]
    while sum(task.done() for task in reading) < len(still) - 8:
        await asyncio.sleep(POLL_S)
    assert shard.ledger.asked == asked_for_posts + 1 + 8
    shard.ledger.held.set()
    assert {response.status for response in await asyncio.gather(*reading)} == {200}
