"""Any order of commits, reads, reports, failures and crashes: the cursor never passes an undelivered
change."""

from __future__ import annotations

from random import Random

import pytest

from cdc.cursor import Delivered, Span
from cdc.record import Record
from cdc.tailer import Ask, Identity, Open, Policy, Read, Restart, Store, Tailer
from tollgate.v1.change_pb2 import Change
from tollgate.v1.shard_pb2 import ReadChangesResponse
from tollgate.watermark import Watermark

INCARNATION = b"i" * 16
WINDOW = 12


class Model:
    """The deciding code of cdc between a model of a shard and a model of Kafka, on a schedule drawn from a
    seed."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.log: dict[int, bytes] = {}
        self.last = self.acknowledged = self.unseen = 0
        self.epoch = 1
        self.call: tuple[Identity, int] | None = None
        self.kafka: set[bytes] = set()
        self.repeats = 0
        self.now = 0.0
        self.start_process()

    def start_process(self) -> None:
        """After a crash, too: nothing is left of the one before."""
        self.tailer = Tailer(0, Policy(batch_records_max=4))
        self.delivered = Delivered()
        self.generation = 0
        self.producer: list[tuple[int, Record]] = []
        self.reports: list[int] = []

    def run(self, steps: int) -> None:
        weights = {
            self.step: 30,
            self.commit: 10,
            self.kafka_takes_one: 40,
            self.reports_arrive: 15,
            self.acknowledge: 8,
            self.the_call_arrives: 4,
            self.the_secondary_lags: 2,
            self.reopen: 1,
            self.the_producer_breaks: 1,
            self.start_process: 1,
        }
        for act in self.random.choices(list(weights), list(weights.values()), k=steps):
            act()
            self.check()

    # The shard

    def commit(self) -> None:
        for _ in range(self.random.randint(1, 4)):
            self.last += 1
            change = Change(shard=0, incarnation=INCARNATION, epoch=self.epoch, sequence=self.last)
            self.log[self.last] = change.SerializeToString()

    def reopen(self) -> None:
        """Now and then with the loss of a tail, as after a disk that lied: its sequences go to other
        changes."""
        self.epoch += 1
        for _ in range(self.random.choice((0, 0, 3, 6))):
            if self.last > self.acknowledged:
                del self.log[self.last]
                self.last -= 1

    def the_secondary_lags(self) -> None:
        self.unseen = self.random.choice((0, 0, 1, 3))

    # The process

    def step(self) -> None:
        self.now += 0.5
        room = WINDOW - (self.tailer.position - self.delivered.prefix)
        action = self.tailer.next(Watermark(INCARNATION, self.epoch, self.last), room, self.now)
        match action:
            case Open():
                store = Store(0, Identity(INCARNATION, self.epoch), self.acknowledged)
                restart = self.tailer.opened(store, action.watermark, self.now)
                if restart is not None:
                    self.restart(restart)
            case Read(after, up_to):
                seen = min(up_to, self.last - self.unseen)
                self.publish(self.tailer.seen(action, self.rows(after + 1, seen), self.now))
            case Ask(first, limit):
                answered = self.tailer.answered(self.answer(first, limit), self.now)
                if isinstance(answered, Restart):
                    self.restart(answered)
                else:
                    self.publish(answered)

    def rows(self, first: int, last: int) -> list[tuple[int, bytes]]:
        return [(sequence, self.log[sequence]) for sequence in range(first, last + 1)]

    def answer(self, first: int, limit: int) -> ReadChangesResponse:
        return ReadChangesResponse(
            incarnation=INCARNATION,
            epoch=self.epoch,
            durable_sequence=self.last,
            acknowledged_sequence=self.acknowledged,
            changes=[value for _, value in self.rows(first, min(first + limit - 1, self.last))],
        )

    def restart(self, restart: Restart) -> None:
        """What the producer has queued may still be delivered; its reports count for nothing."""
        self.generation += 1
        self.delivered.restart(restart.identity, restart.acknowledged)
        self.reports.clear()

    def publish(self, records: list[Record]) -> None:
        if records:
            self.producer.extend((self.generation, record) for record in records)
            self.delivered.sent(records)
            self.tailer.published(records[-1].sequence)

    def kafka_takes_one(self) -> None:
        """Partitions deliver in any order among each other."""
        if self.producer:
            self.deliver(self.random.randrange(len(self.producer)))

    def deliver(self, index: int) -> None:
        generation, record = self.producer.pop(index)
        self.repeats += record.value in self.kafka
        self.kafka.add(record.value)
        if generation == self.generation:
            self.reports.append(record.sequence)

    def reports_arrive(self) -> None:
        self.delivered.reported([Span(sequence, sequence) for sequence in self.reports])
        self.reports = []

    def the_producer_breaks(self) -> None:
        self.generation += 1
        self.producer.clear()
        self.reports.clear()
        self.delivered.forget_in_flight()
        self.tailer.rewind(self.delivered.prefix)

    def acknowledge(self) -> None:
        """One call is under way at a time; it may arrive late, even after its sender has died."""
        if self.call is None and self.delivered.identity is not None:
            self.call = self.delivered.identity, self.delivered.prefix

    def the_call_arrives(self) -> None:
        if self.call is not None:
            identity, prefix = self.call
            self.call = None
            if identity == Identity(INCARNATION, self.epoch):  # the shard refuses another opening's
                self.acknowledged = max(self.acknowledged, prefix)

    # What must hold

    def check(self) -> None:
        assert self.tailer.halted is None
        assert self.delivered.in_flight <= WINDOW
        for sequence in range(1, self.acknowledged + 1):
            assert self.log[sequence] in self.kafka, f"{sequence} is acknowledged but not in Kafka"

    def come_to_rest(self) -> None:
        """Left alone, everything arrives."""
        self.unseen = 0
        for _ in range(4 * self.last + 40):
            self.step()
            while self.producer:
                self.deliver(0)
            self.reports_arrive()
            self.acknowledge()
            self.the_call_arrives()
        self.check()
        assert self.acknowledged == self.last


@pytest.mark.parametrize("seed", range(40))
def test_the_cursor_never_passes_an_undelivered_change_and_everything_arrives(seed: int) -> None:
    model = Model(seed)
    model.run(600)
    model.come_to_rest()
    assert model.last > 50
    assert model.repeats > 0, "a schedule that repeats nothing has met no failure"
