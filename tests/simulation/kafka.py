"""Kafka as its clients know it: partitions that keep what they acknowledged, and a group that shares them.

- A record that was reported is in its partition for good, also after a crash of the broker. One that was sent
  and not reported may be there or not; a producer sends it again until it is reported, and the broker knows
  its own producer's repeats. The next batch of a partition goes out when the one before is reported.
- A producer may break: what it had not reported then may still arrive.
- A member of the group that is silent for its session loses its partitions, and may not know. What it commits
  then is refused; whoever has the partition now reads from what was committed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final, NamedTuple
from zlib import crc32

from processor.changes import ChangeRecord
from processor.patience import patient_wait
from tests.simulation.loop import Process, VirtualLoop, current
from tests.simulation.trace import Trace
from tollgate.errors import OperationalError
from tollgate.topics import CHANGES

PARTITIONS: Final = 4
SESSION_US: Final = 6_000_000
_BATCH: Final = 20
_POLL_S: Final = 0.25
_HEARTBEAT_S: Final = 1.5

Place = tuple[str, int]
Report = Callable[[bool], None]


class Record(NamedTuple):
    offset: int
    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]]
    timestamp_us: int


@dataclass(eq=False)
class _Item:
    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]]
    report: Report
    stored: bool = False


class Broker:
    def __init__(self, loop: VirtualLoop, random: Random, trace: Trace) -> None:
        self.loop = loop
        self.random = random
        self.trace = trace
        self.process = loop.process("kafka")
        self.up = True
        self.lost_reports = 0.0  # a share of all
        self.partitions: dict[Place, list[Record]] = {}
        self.committed: dict[tuple[str, int], tuple[int, int]] = {}  # (group, partition) → offset, published
        self.changes: dict[bytes, None] = {}  # every change that was ever taken
        self.group = Group(self)

    def log(self, topic: str, partition: int) -> list[Record]:
        return self.partitions.setdefault((topic, partition), [])

    def records(self, topic: str) -> Iterator[Record]:
        for (name, _), log in sorted(self.partitions.items(), key=lambda item: item[0]):
            if name == topic:
                yield from log

    def store(self, place: Place, item: _Item) -> None:
        log = self.log(*place)
        log.append(Record(len(log), item.key, item.value, item.headers, self.process.now_us()))
        if place[0] == CHANGES:
            self.changes[item.value] = None
        self.trace.add(self.loop.now_us, "kafka", f"{place[0]}/{place[1]} {len(log) - 1} {item.key.decode()}")

    def delay_us(self) -> int:
        return int(self.random.expovariate(1.0) * 800) + 100


def partition_of(key: bytes) -> int:
    return crc32(key) % PARTITIONS


class Producer:
    """One idempotent producer, of the process that makes it."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._owner = current()
        self._queues: dict[Place, deque[_Item]] = {}
        self._busy: dict[Place, None] = {}
        self._ended = False

    def produce(
        self, place: Place, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]], report: Report
    ) -> None:
        self._queues.setdefault(place, deque()).append(_Item(key, value, headers, report))
        if place not in self._busy:
            self._busy[place] = None
            self._send_next(place)

    def end(self) -> None:
        """What is not reported is dropped, as far as it is still here."""
        self._ended = True
        self._queues.clear()

    def _send_next(self, place: Place) -> None:
        queue = self._queues.get(place)
        if self._ended or not queue:
            self._busy.pop(place, None)
            return
        batch = [queue.popleft() for _ in range(min(_BATCH, len(queue)))]
        self._send(place, batch)

    def _send(self, place: Place, batch: list[_Item]) -> None:
        broker = self._broker
        broker.loop.post(broker.process, broker.delay_us(), self._arrive, place, batch)

    def _arrive(self, place: Place, batch: list[_Item]) -> None:
        broker = self._broker
        if broker.up:
            for item in batch:
                if not item.stored:
                    item.stored = True
                    broker.store(place, item)
            if broker.random.random() >= broker.lost_reports:
                broker.loop.post(self._owner, broker.delay_us(), self._reported, place, batch)
                return
        broker.loop.post(self._owner, 100_000, self._again, place, batch)

    def _again(self, place: Place, batch: list[_Item]) -> None:
        if not self._ended:
            self._send(place, batch)

    def _reported(self, place: Place, batch: list[_Item]) -> None:
        if self._ended:
            return
        for item in batch:
            item.report(True)
        self._send_next(place)


@dataclass(eq=False)
class Member:
    process: Process
    heard_us: int
    assigned: tuple[int, ...] = ()
    positions: dict[int, int] = field(default_factory=dict)
    taken: dict[int, int] = field(default_factory=dict)  # as positions: what is durable, to be committed
    wakes: int = 0


class Group:
    """The members that share payments.changes."""

    name = "intake"

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.members: list[Member] = []

    def join(self, process: Process) -> Member:
        member = Member(process, self._broker.loop.now_us)
        self.members.append(member)
        self.rebalance()
        return member

    def heard(self, member: Member) -> None:
        if member in self.members:
            member.heard_us = self._broker.loop.now_us
        else:  # it was given up: it joins again, with nothing
            member.positions.clear()
            member.taken.clear()
            member.heard_us = self._broker.loop.now_us
            self.members.append(member)
            self.rebalance()

    def expire(self) -> None:
        if not self._broker.up:  # nobody could be heard
            for member in self.members:
                member.heard_us = self._broker.loop.now_us
            return
        living = [one for one in self.members if self._broker.loop.now_us - one.heard_us < SESSION_US]
        if len(living) != len(self.members):
            self.members = living
            self.rebalance()

    def rebalance(self) -> None:
        """Who keeps a partition keeps his place in it."""
        count = len(self.members)
        shift = int(self._broker.random.random() * max(1, count))
        for index, member in enumerate(self.members):
            mine = tuple(p for p in range(PARTITIONS) if p % count == (index + shift) % count)
            member.positions = {p: at for p, at in member.positions.items() if p in mine}
            member.taken = {p: at for p, at in member.taken.items() if p in mine}
            member.assigned = mine

    def fetch(self, member: Member, limit: int) -> list[ChangeRecord]:
        if not self._broker.up or member not in self.members:
            return []
        records: list[ChangeRecord] = []
        for partition in member.assigned:
            stored = self._broker.committed.get((self.name, partition), (0, 0))[0]
            at = member.positions.get(partition, stored)
            found = self._broker.log(CHANGES, partition)[at : at + limit - len(records)]
            member.positions[partition] = at + len(found)
            records += [
                ChangeRecord(CHANGES, partition, r.offset, r.key, r.value, r.headers, r.timestamp_us)
                for r in found
            ]
        return records

    def commit(self, member: Member) -> None:
        """As a client does by itself: what a broker that is down did not hear is told again."""
        if not self._broker.up or member not in self.members:
            return
        for partition, offset in member.taken.items():
            place = (self.name, partition)
            before = self._broker.committed.get(place, (0, 0))[0]
            self._broker.committed[place] = (max(before, offset), 0)
        member.taken.clear()


class GroupConsumer:
    """processor.kafka.consumer in its order: take, hand over until it is durable, only then commit."""

    def __init__(
        self, broker: Broker, handle: Callable[[Sequence[ChangeRecord]], Awaitable[None]], batch_max: int
    ) -> None:
        self._broker = broker
        self._handle = handle
        self._batch_max = batch_max

    async def run(self) -> None:
        group = self._broker.group
        member = group.join(current())
        beating = asyncio.get_running_loop().create_task(self._beat(member))
        try:
            while True:
                if records := group.fetch(member, self._batch_max):
                    await self._deliver(member, records)
                else:
                    await asyncio.sleep(_POLL_S)
                group.commit(member)
        finally:
            beating.cancel()

    async def _beat(self, member: Member) -> None:
        while True:
            await asyncio.sleep(_HEARTBEAT_S)
            self._broker.group.heard(member)

    async def _deliver(self, member: Member, records: list[ChangeRecord]) -> None:
        wait = patient_wait()
        while True:
            try:
                await self._handle(records)
            except OperationalError:
                await asyncio.sleep(wait.next())
                continue
            member.taken |= {
                one.partition: one.offset + 1 for one in records if one.partition in member.assigned
            }
            await asyncio.sleep(self._broker.delay_us() / 1e6)
            return
