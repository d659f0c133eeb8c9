"""The cursor: reports in any order, and an acknowledgement that never runs ahead of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.cursor import Acknowledger, Delivered, Span
from cdc.record import Record
from cdc.tailer import Identity
from tollgate.errors import OperationalError
from tollgate.v1.change_pb2 import Change
from tollgate.v1.shard_pb2 import ApplyStatusResponse, ReadChangesResponse, StatusUpdate

ME = Identity(b"i" * 16, 1)


def record(sequence: int) -> Record:
    change = Change(sequence=sequence, committed_at_us=1_000 + sequence)
    return Record(sequence, 1, b"acme/checkout", b"", change.SerializeToString())


SIZE = len(record(1).value)


def spans(*sequences: int) -> list[Span]:
    return [Span(sequence, sequence) for sequence in sequences]


def sent(count: int) -> Delivered:
    delivered = Delivered()
    delivered.restart(ME, 0)
    for sequence in range(1, count + 1):
        delivered.sent([record(sequence)])
    return delivered


@given(st.permutations(range(1, 30)), st.integers(0, 29))
def test_the_prefix_ends_before_the_first_report_that_is_missing(order: list[int], missing: int) -> None:
    delivered = sent(29)
    for sequence in order:
        if sequence != missing:
            delivered.reported(spans(sequence))
            assert delivered.prefix < missing or missing == 0
    assert delivered.prefix == (missing - 1 if missing else 29)
    assert delivered.in_flight == 29 - delivered.prefix
    assert delivered.in_flight_bytes == SIZE * delivered.in_flight


def test_a_report_twice_or_of_what_is_behind_changes_nothing() -> None:
    delivered = sent(3)
    assert delivered.reported(spans(1, 1, 2)) == 2
    assert delivered.reported(spans(1, 2)) == 0
    assert delivered.prefix == 2


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_spans_of_any_length_in_any_order_move_the_prefix_over_whole_spans_alone(
    lengths: list[int], order: Random
) -> None:
    delivered, ends = Delivered(), [0]
    delivered.restart(ME, 0)
    for length in lengths:
        delivered.sent([record(ends[-1] + index) for index in range(1, length + 1)])
        ends.append(ends[-1] + length)
    whole = [Span(before + 1, end) for before, end in pairwise(ends)]
    known: set[Span] = set()
    for span in order.sample(whole, len(whole)):
        known.add(span)
        delivered.reported([span])
        missing = next((other.first for other in whole if other not in known), ends[-1] + 1)
        assert delivered.prefix == missing - 1
        assert delivered.in_flight == ends[-1] - delivered.prefix
        assert delivered.in_flight_bytes == sum(
            len(record(sequence).value) for sequence in range(delivered.prefix + 1, ends[-1] + 1)
        )


def test_a_batch_counts_until_the_last_of_it_is_delivered() -> None:
    delivered = Delivered()
    delivered.restart(ME, 0)
    delivered.sent([record(1), record(2), record(3)])
    delivered.reported([Span(1, 2)])
    assert (delivered.prefix, delivered.in_flight) == (2, 1)
    assert delivered.oldest_in_flight_us() == 1_001
    assert delivered.in_flight_bytes == 3 * SIZE
    delivered.reported([Span(3, 3)])
    assert (delivered.in_flight_bytes, delivered.oldest_in_flight_us()) == (0, None)


def test_the_age_is_that_of_the_oldest_not_delivered() -> None:
    delivered = sent(3)
    delivered.reported(spans(2))
    assert delivered.oldest_in_flight_us() == 1_001
    delivered.reported(spans(1, 3))
    assert delivered.oldest_in_flight_us() is None


def test_a_lost_producer_takes_its_reports_with_it_but_not_the_prefix() -> None:
    delivered = sent(5)
    delivered.reported(spans(1, 2, 4, 5))
    delivered.forget_in_flight()
    assert (delivered.prefix, delivered.in_flight, delivered.in_flight_bytes) == (2, 0, 0)
    delivered.sent([record(3)])
    delivered.reported(spans(3))
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
        delivered.reported(spans(sequence))
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
    delivered.reported(spans(1, 2))
    acknowledger.moved()
    await until(shard, 2)
    task.cancel()
    assert acknowledger.acknowledged == 2


async def test_an_answer_for_the_opening_before_is_not_taken_for_this_one(shard: FakeShard) -> None:
    delivered = sent(3)
    acknowledger = Acknowledger(delivered, shard)
    acknowledger.restart(ME, 0)
    delivered.reported(spans(1, 2, 3))
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
        delivered.reported(spans(sequence))
        acknowledger.moved()
        await until(shard, sequence)
    task.cancel()
    assert [sequence for _, sequence in shard.acknowledgements] == [1, 2, 3]
