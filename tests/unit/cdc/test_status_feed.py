"""The status feed against fakes: order, batches, a shard that refuses, a store that is replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from cdc.dead_letters import DeadLetter
from cdc.patient_shard import PatientShard
from cdc.status_feed import CALL_BYTES_MAX, Item, StatusFeed, calls, judge
from cdc.status_refresh import PUBLISHED_LATE_US, LedgerRefresh
from cdc.status_topic import Beginning, Position, StatusRecord, beginning
from cdc.tailer import Identity
from tollgate.errors import OperationalError, RejectedInput
from tollgate.v1.ledger_pb2 import ListShardPaymentsResponse
from tollgate.v1.payment_pb2 import Payment
from tollgate.v1.shard_pb2 import ApplyStatusResponse, ReadChangesResponse, StatusUpdate


def snapshot(number: int, *, version: int = 1, padding: int = 0, published_at_us: int = 0) -> bytes:
    payment = Payment(
        merchant="acme", checkout_id=f"checkout-{number:04}", version=version, description="x" * padding
    )
    return StatusUpdate(payment=payment, published_at_us=published_at_us).SerializeToString()


def record(offset: int, value: bytes | None) -> StatusRecord:
    return StatusRecord(3, offset, b"key", value)


def test_only_a_snapshot_of_a_payment_is_one() -> None:
    records = [
        record(0, snapshot(0)),
        record(1, b"\xff\xff"),
        record(2, None),
        record(3, snapshot(3, version=0)),
        record(4, StatusUpdate(payment=Payment(merchant="acme", version=1)).SerializeToString()),
        record(5, snapshot(5)),
    ]
    judged = judge(records)
    assert [item.record.offset for item in judged.good] == [0, 5]
    assert [poison.offset for poison, _ in judged.poison] == [1, 2, 3, 4]


def test_a_call_stays_below_what_grpc_takes() -> None:
    values = [snapshot(number, padding=700_000) for number in range(7)]
    items = [
        Item(record(number, value), StatusUpdate.FromString(value)) for number, value in enumerate(values)
    ]
    cut = list(calls(items))
    assert [item for call in cut for item in call] == items
    assert all(sum(len(item.record.value or b"") for item in call) <= CALL_BYTES_MAX for call in cut)
    assert list(calls([])) == []


class FakeShard:
    def __init__(self) -> None:
        self.applied: list[str] = []
        self.failures: list[Exception] = []
        self.refused = ""

    async def acknowledge(self, identity: Identity, sequence: int) -> bool:
        return False

    async def read_changes(self, from_sequence: int, limit: int) -> ReadChangesResponse:
        return ReadChangesResponse()

    async def apply_status(self, updates: Sequence[StatusUpdate]) -> ApplyStatusResponse:
        if self.failures:
            raise self.failures.pop()
        ids = [update.payment.checkout_id for update in updates]
        if self.refused in ids:
            raise RejectedInput("no")
        self.applied += ids
        return ApplyStatusResponse(applied=len(updates))


class FakeTopic:
    """Gives its batches, then nothing; remembers what was done at which point."""

    def __init__(self, batches: list[list[StatusRecord] | Exception], shard: FakeShard) -> None:
        self._batches = batches
        self._shard = shard
        self.done_at: list[tuple[int, int]] = []
        self.published: list[int] = []
        self.closed = False
        self.begins: list[Beginning | Exception] = [Beginning(0, 0, is_lost=False)]
        self.empty = asyncio.Event()

    async def begin(self) -> Beginning:
        begun = self.begins.pop(0)
        if isinstance(begun, Exception):
            raise begun
        return begun

    async def next_batch(self) -> Sequence[StatusRecord]:
        if self._batches:
            batch = self._batches.pop(0)
            if isinstance(batch, Exception):
                raise batch
            return batch
        self.empty.set()
        await asyncio.sleep(0)
        return []

    async def done(self, offset: int, published_at_us: int) -> None:
        self.done_at.append((offset, len(self._shard.applied)))
        self.published.append(published_at_us)

    async def close(self) -> None:
        self.closed = True


class FakeDeadLetters:
    def __init__(self) -> None:
        self.letters: list[DeadLetter] = []

    async def send(self, letter: DeadLetter) -> None:
        self.letters.append(letter)


class FakeLedger:
    """Two payments a page; `failures` are raised first."""

    def __init__(self, payments: int) -> None:
        self._payments = [
            Payment(merchant="acme", checkout_id=f"missed-{number:04}", version=3)
            for number in range(payments)
        ]
        self.failures: list[Exception] = []
        self.asked: list[tuple[int, int, str]] = []

    async def shard_payments(self, shard: int, since_us: int, cursor: str) -> ListShardPaymentsResponse:
        self.asked.append((shard, since_us, cursor))
        if self.failures:
            raise self.failures.pop()
        start = int(cursor or 0)
        more = str(start + 2) if start + 2 < len(self._payments) else ""
        return ListShardPaymentsResponse(payments=self._payments[start : start + 2], next_cursor=more)


class Bench:
    def __init__(self, *topics: list[list[StatusRecord] | Exception]) -> None:
        self.shard = FakeShard()
        self.dead_letters = FakeDeadLetters()
        self.incarnation: bytes | None = b"a"
        self.topics = [FakeTopic(batches, self.shard) for batches in topics]
        self.opened: list[bytes] = []
        self.ledger = FakeLedger(5)

    def open(self, incarnation: bytes) -> FakeTopic:
        self.opened.append(incarnation)
        return self.topics[len(self.opened) - 1]

    async def run_until_empty(self) -> None:
        applying = PatientShard(self.shard)
        feed = StatusFeed(
            incarnation=lambda: self.incarnation,
            open_source=self.open,
            shard=applying,
            refresh=LedgerRefresh(3, self.ledger, applying),
            dead_letters=self.dead_letters,
        )
        task = asyncio.create_task(feed.run())
        async with asyncio.timeout(10):
            await self.topics[-1].empty.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_offset_is_done_only_after_the_shard_has_answered() -> None:
    bench = Bench([[record(0, snapshot(0)), record(1, snapshot(1))], [record(2, snapshot(2))]])
    bench.shard.failures = [OperationalError("down"), OperationalError("down")]
    await bench.run_until_empty()
    assert bench.shard.applied == ["checkout-0000", "checkout-0001", "checkout-0002"]
    assert bench.topics[0].done_at == [(2, 2), (3, 3)]
    assert bench.topics[0].closed


async def test_the_one_snapshot_that_the_shard_refuses_is_buried_alone() -> None:
    bench = Bench([[record(number, snapshot(number)) for number in range(3)]])
    bench.shard.refused = "checkout-0001"
    await bench.run_until_empty()
    assert bench.shard.applied == ["checkout-0000", "checkout-0002"]
    assert [letter.origin_offset for letter in bench.dead_letters.letters] == [1]


async def test_a_failed_read_starts_again_at_what_is_committed() -> None:
    bench = Bench([OperationalError("gone")], [[record(0, snapshot(0))]])
    await bench.run_until_empty()
    assert bench.opened == [b"a", b"a"]
    assert bench.topics[0].closed
    assert bench.shard.applied == ["checkout-0000"]


async def test_another_store_is_fed_by_another_group() -> None:
    bench = Bench([[record(0, snapshot(0))]], [[record(0, snapshot(0))]])
    feed = asyncio.create_task(bench.run_until_empty())
    async with asyncio.timeout(10):
        await bench.topics[0].empty.wait()
        bench.incarnation = b"b"
        await feed
    assert bench.opened == [b"a", b"b"]
    assert bench.shard.applied == ["checkout-0000"] * 2


def test_reading_begins_where_the_group_stands_unless_that_is_gone() -> None:
    assert beginning(None, 0, 10) == Beginning(0, 0, is_lost=False)
    assert beginning(None, 4, 10) == Beginning(4, 0, is_lost=True)
    for offset in (4, 7, 10):
        assert beginning(Position(offset, 99), 4, 10) == Beginning(offset, 99, is_lost=False)
    for offset in (3, 11):  # deleted before it was read; the topic is another one
        assert beginning(Position(offset, 99), 4, 10) == Beginning(4, 99, is_lost=True)


async def test_what_was_missed_comes_from_the_ledger_before_the_earliest_record() -> None:
    bench = Bench([[record(40, snapshot(40, published_at_us=PUBLISHED_LATE_US + 900))]])
    since_us = PUBLISHED_LATE_US + 500
    bench.topics[0].begins = [OperationalError("Kafka is down"), Beginning(40, since_us, is_lost=True)]
    bench.ledger.failures = [OperationalError("no processor runs")]
    bench.shard.failures = [OperationalError("the shard is down")]
    await bench.run_until_empty()
    missed = [f"missed-{number:04}" for number in range(5)]
    assert bench.shard.applied == [*missed, "checkout-0040"]
    assert bench.ledger.asked == [(3, 500, ""), (3, 500, ""), (3, 500, "2"), (3, 500, "4")]
    assert bench.topics[0].done_at == [(40, 5), (41, 6)]
    assert bench.topics[0].published == [since_us, PUBLISHED_LATE_US + 900]


async def test_a_refreshed_payment_that_the_shard_refuses_does_not_keep_the_others() -> None:
    bench = Bench([])
    bench.topics = [FakeTopic([], bench.shard)]
    bench.topics[0].begins = [Beginning(0, 0, is_lost=True)]
    bench.shard.refused = "missed-0001"
    await bench.run_until_empty()
    assert bench.shard.applied == ["missed-0000", "missed-0002", "missed-0003", "missed-0004"]
    assert bench.dead_letters.letters == []
