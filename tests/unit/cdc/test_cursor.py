"""The cursor: reports in any order, and an acknowledgement that never runs ahead of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.cursor import Acknowledger, Delivered
from cdc.tailer import Identity, Record
from tollgate.errors import OperationalError
from tollgate.v1.shard_pb2 import ApplyStatusResponse, ReadChangesResponse, StatusUpdate

ME = Identity(b"i" * 16, 1)


def record(sequence: int) -> Record:
    return Record(sequence, 1, "acme/checkout", "", 1_000 + sequence, b"12345")


def sent(count: int) -> Delivered:
    delivered = Delivered()
    delivered.restart(ME, 0)
    delivered.sent(record(sequence) for sequence in range(1, count + 1))
    return delivered


@given(st.permutations(range(1, 30)), st.integers(0, 29))
def test_the_prefix_ends_before_the_first_report_that_is_missing(order: list[int], missing: int) -> None:
    delivered = sent(29)
    for sequence in order:
        if sequence != missing:
            delivered.reported([sequence])
            assert delivered.prefix < missing or missing == 0
    assert delivered.prefix == (missing - 1 if missing else 29)
    assert delivered.in_flight == 29 - delivered.prefix
    assert delivered.in_flight_bytes == 5 * delivered.in_flight


def test_a_report_twice_or_of_what_is_behind_changes_nothing() -> None:
    delivered = sent(3)
    assert delivered.reported([1, 1, 2]) == 2
    assert delivered.reported([1, 2]) == 0
    assert delivered.prefix == 2


def test_the_age_is_that_of_the_oldest_not_delivered() -> None:
    delivered = sent(3)
    delivered.reported([2])
    assert delivered.oldest_in_flight_us() == 1_001
    delivered.reported([1, 3])
    assert delivered.oldest_in_flight_us() is None


def test_a_lost_producer_takes_its_reports_with_it_but_not_the_prefix() -> None:
    delivered = sent(5)
    delivered.reported([1, 2, 4, 5])
    delivered.forget_in_flight()
    assert (delivered.prefix, delivered.in_flight, delivered.in_flight_bytes) == (2, 0, 0)
    delivered.sent([record(3)])
    delivered.reported([3])
    assert delivered.prefix == 3, "4 and 5 are to be delivered again"


class FakeShard:
    """Keeps acknowledgements; refuses as many as it is told."""

    def __init__(self) -> None:
        self.acknowledgements: list[tuple[Identity, int]] = []
        self.refuse = 0
        self.awaited = False
        self.calling = 0
        self.most_calling = 0
        self.acknowledged = asyncio.Event()
        self.release = asyncio.Event()
        self.release.set()

    async def acknowledge(self, identity: Identity, sequence: int) -> bool:
        self.calling += 1
        self.most_calling = max(self.calling, self.most_calling)
        await self.release.wait()
        self.calling -= 1
        if self.refuse:
            self.refuse -= 1
            raise OperationalError("down")
        self.acknowledgements.append((identity, sequence))
        self.acknowledged.set()
        return self.awaited

    async def read_changes(self, from_sequence: int, limit: int) -> ReadChangesResponse:
        return ReadChangesResponse()

    async def apply_status(self, updates: Sequence[StatusUpdate]) -> ApplyStatusResponse:
        return ApplyStatusResponse()


async def until(shard: FakeShard, sequence: int) -> None:
    async with asyncio.timeout(10):
        while not shard.acknowledgements or shard.acknowledgements[-1][1] != sequence:
            await shard.acknowledged.wait()
            shard.acknowledged.clear()


@pytest.fixture
def shard() -> FakeShard:
    return FakeShard()


async def test_acknowledgements_coalesce_and_only_one_is_under_way(shard: FakeShard) -> None:
    delivered = sent(100)
    acknowledger = Acknowledger(delivered, shard)
    acknowledger.restart(ME, 0)
    shard.release.clear()
    task = asyncio.create_task(acknowledger.run())
    for sequence in range(1, 101):
        delivered.reported([sequence])
        acknowledger.moved()
        await asyncio.sleep(0)
    shard.release.set()
    await until(shard, 100)
    task.cancel()
    assert shard.most_calling == 1
    assert len(shard.acknowledgements) <= 3


async def test_a_refused_acknowledgement_is_sent_again_by_itself(shard: FakeShard) -> None:
    delivered = sent(3)
    acknowledger = Acknowledger(delivered, shard)
    acknowledger.restart(ME, 0)
    shard.refuse = 2
    task = asyncio.create_task(acknowledger.run())
    delivered.reported([1, 2])
    acknowledger.moved()
    await until(shard, 2)
    task.cancel()
    assert acknowledger.acknowledged == 2


async def test_an_answer_for_the_opening_before_is_not_taken_for_this_one(shard: FakeShard) -> None:
    delivered = sent(3)
    acknowledger = Acknowledger(delivered, shard)
    acknowledger.restart(ME, 0)
    delivered.reported([1, 2, 3])
    shard.release.clear()
    call = asyncio.create_task(acknowledger.acknowledge_once())
    while not shard.calling:
        await asyncio.sleep(0)
    reopened = Identity(ME.incarnation, 2)
    delivered.restart(reopened, 1)
    acknowledger.restart(reopened, 1)
    shard.release.set()
    await call
    assert shard.acknowledgements == [(ME, 3)]
    assert acknowledger.acknowledged == 1


async def test_where_requests_wait_for_it_nothing_is_gathered(
    shard: FakeShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cdc.cursor.ACKNOWLEDGE_EVERY_S", 3600.0)
    shard.awaited = True
    delivered = sent(3)
    acknowledger = Acknowledger(delivered, shard)
    acknowledger.restart(ME, 0)
    task = asyncio.create_task(acknowledger.run())
    for sequence in (1, 2, 3):
        delivered.reported([sequence])
        acknowledger.moved()
        await until(shard, sequence)
    task.cancel()
    assert [sequence for _, sequence in shard.acknowledgements] == [1, 2, 3]
