"""The status feed against fakes: order, batches, a shard that refuses, a store that is replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from cdc.dead_letters import DeadLetter
from cdc.status_feed import CALL_BYTES_MAX, Item, StatusFeed, calls, judge
from cdc.status_topic import StatusRecord
from cdc.tailer import Identity
from tollgate.errors import OperationalError, RejectedInput
from tollgate.v1.payment_pb2 import Payment
from tollgate.v1.shard_pb2 import ApplyStatusResponse, ReadChangesResponse, StatusUpdate


def snapshot(number: int, *, version: int = 1, padding: int = 0) -> bytes:
    payment = Payment(
        merchant="acme", checkout_id=f"checkout-{number:04}", version=version, description="x" * padding
    )
    return StatusUpdate(payment=payment).SerializeToString()


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
        self.closed = False
        self.empty = asyncio.Event()

    async def next_batch(self) -> Sequence[StatusRecord]:
        if self._batches:
            batch = self._batches.pop(0)
            if isinstance(batch, Exception):
                raise batch
            return batch
        self.empty.set()
        await asyncio.sleep(0)
        return []

    async def done(self, offset: int) -> None:
        self.done_at.append((offset, len(self._shard.applied)))

    async def close(self) -> None:
        self.closed = True


class FakeDeadLetters:
    def __init__(self) -> None:
        self.letters: list[DeadLetter] = []

    async def send(self, letter: DeadLetter) -> None:
        self.letters.append(letter)


class Bench:
    def __init__(self, *topics: list[list[StatusRecord] | Exception]) -> None:
        self.shard = FakeShard()
        self.dead_letters = FakeDeadLetters()
        self.incarnation: bytes | None = b"a"
        self.topics = [FakeTopic(batches, self.shard) for batches in topics]
        self.opened: list[bytes] = []

    def open(self, incarnation: bytes) -> FakeTopic:
        self.opened.append(incarnation)
        return self.topics[len(self.opened) - 1]

    async def run_until_empty(self) -> None:
        feed = StatusFeed(
            incarnation=lambda: self.incarnation,
            open_source=self.open,
            shard=self.shard,
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
