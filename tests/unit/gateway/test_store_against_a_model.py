"""Planner, committer's order and store together against a dict: whatever the power cuts, promises hold."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.change_log import MARK_BYTES, Identity, LogState
from gateway.errors import BeyondDurable, WrongOpening
from gateway.planner import (
    Accept,
    Acceptance,
    Acknowledged,
    Acknowledgement,
    Applied,
    Conflict,
    Departure,
    Done,
    Entry,
    Plan,
    Planner,
    Pruning,
    Replay,
    Snapshot,
    StatusBatch,
    keys_of,
)
from gateway.store.memory import Disk, MemoryStore
from gateway.store.opening import open_store
from tollgate.shard_layout import CHANGES, PAYMENTS, PAYMENTS_BEGIN, encode_u64
from tollgate.v1.change_pb2 import Change
from tollgate.v1.payment_pb2 import Payment

SHARD = 3
INCARNATION = b"\7" * 16
KEYS = [f"acme/order-000{i}" for i in range(4)]
CONTENTS = ["a", "b"]


@dataclass(frozen=True)
class Known:
    content: str
    version: int


def payment(key: str, content: str, version: int) -> bytes:
    merchant, _, checkout_id = key.partition("/")
    print_ = hashlib.sha256(content.encode()).digest()
    # Large enough that a handful of them fills a piece of the change log.
    filler = content * (MARK_BYTES // 5)
    return Payment(
        merchant=merchant, checkout_id=checkout_id, version=version, fingerprint=print_, description=filler
    ).SerializeToString()


def acceptance(key: str, content: str) -> Acceptance:
    return Acceptance(key, payment(key, content, 0), hashlib.sha256(content.encode()).digest(), "")


def epoch_of(opening: int) -> int:
    """Of the nth opening, where always the same is drawn."""
    return opening << 32 | int.from_bytes(INCARNATION[:4])


entries = st.one_of(
    st.builds(acceptance, st.sampled_from(KEYS), st.sampled_from(CONTENTS)),
    st.builds(
        lambda items: StatusBatch(tuple(Snapshot(k, v, payment(k, c, v)) for k, c, v in items)),
        st.lists(
            st.tuples(st.sampled_from(KEYS), st.sampled_from(CONTENTS), st.integers(1, 4)),
            min_size=1,
            max_size=3,
        ),
    ),
    st.builds(
        Acknowledgement,
        st.sampled_from([INCARNATION, INCARNATION, INCARNATION, b"other"]),
        st.sampled_from([1, 1, 1, 2, 3]).map(epoch_of),
        st.integers(0, 12),
    ),
    st.builds(Pruning, st.integers(0, 12)),
    st.builds(Departure, st.sampled_from(KEYS), st.integers(0, 4)),
)


class ShardAgainstADict(RuleBasedStateMachine):
    """The model is what a shard has promised: it changes only when a flush has ended."""

    @initialize()
    def create(self) -> None:
        self.disk = Disk()
        self.payments: dict[str, Known] = {}
        self.log = LogState()
        self.shipped: dict[int, str] = {}
        self.openings = 0
        self.open()

    def open(self) -> None:
        self.store = MemoryStore(self.disk)
        opened = open_store(self.store, SHARD, lambda count: INCARNATION[:count])
        self.openings += 1
        self.epoch = epoch_of(self.openings)
        assert opened.identity == Identity(SHARD, INCARNATION, self.epoch)
        self.planner = Planner(opened.identity)
        assert opened.log.last == self.log.last
        assert opened.log.acknowledged == self.log.acknowledged
        assert opened.log.pruned == self.log.pruned
        assert opened.log.marks == self.log.marks
        self.log = opened.log

    def plan(self, batch: list[Entry]) -> Plan:
        keys = keys_of(batch)
        values = self.store.get_many(PAYMENTS, [key.encode() for key in keys])
        found = dict(zip(keys, values, strict=True))
        return self.planner.plan(batch, found, self.log, 1)

    @rule(batch=st.lists(entries, min_size=1, max_size=6))
    def commit(self, batch: list[Entry]) -> None:
        plan = self.plan(batch)
        self.store.write(plan.operations)
        self.store.flush()
        self.check_results(batch, plan)
        self.log = plan.log

    @rule(batch=st.lists(entries, min_size=1, max_size=6))
    def lose_power_before_the_flush(self, batch: list[Entry]) -> None:
        self.store.write(self.plan(batch).operations)
        self.disk.lose_unsynced()
        self.open()

    @rule()
    def restart(self) -> None:
        self.open()

    def check_results(self, batch: list[Entry], plan: Plan) -> None:
        durable_last, acknowledged = self.log.last, self.log.acknowledged
        last = durable_last
        for entry, result in zip(batch, plan.results, strict=True):
            match entry, result:
                case Acceptance(key=key), Accept(sequence):
                    last += 1
                    assert sequence == last
                    assert key not in self.payments
                    self.payments[key] = Known(self.content(entry.payment), 0)
                    self.shipped[sequence] = key
                case Acceptance(key=key), Replay(stored):
                    assert self.content(entry.payment) == self.payments[key].content
                    assert Payment.FromString(stored).version == self.payments[key].version
                case Acceptance(key=key), Conflict():
                    assert self.content(entry.payment) != self.payments[key].content
                case StatusBatch(snapshots), Applied(applied, ignored):
                    assert applied + ignored == len(snapshots)
                    assert applied == sum(self.apply(snapshot) for snapshot in snapshots)
                case Acknowledgement(incarnation, epoch, sequence), Acknowledged(now):
                    assert (incarnation, epoch) == (INCARNATION, self.epoch)
                    assert sequence <= durable_last
                    acknowledged = max(acknowledged, sequence)
                    assert now == acknowledged
                case Acknowledgement(incarnation, epoch, _), WrongOpening():
                    assert (incarnation, epoch) != (INCARNATION, self.epoch)
                case Acknowledgement(_, _, sequence), BeyondDurable():
                    assert sequence > durable_last
                case Pruning(through), Done():
                    assert through <= acknowledged
                case Pruning(through), BeyondDurable():
                    assert through > acknowledged
                case Departure(key, version), Done():
                    if key in self.payments and self.payments[key].version == version:
                        del self.payments[key]
                case _:
                    raise AssertionError(f"{type(entry).__name__} came to {result}")
        assert plan.log.last == last
        assert plan.log.acknowledged == acknowledged

    def apply(self, snapshot: Snapshot) -> bool:
        known = self.payments.get(snapshot.key)
        if known is not None and known.version >= snapshot.version:
            return False
        self.payments[snapshot.key] = Known(self.content(snapshot.payment), snapshot.version)
        return True

    @staticmethod
    def content(serialized: bytes) -> str:
        return Payment.FromString(serialized).description[0]

    @invariant()
    def the_store_holds_what_was_promised(self) -> None:
        if not hasattr(self, "store"):
            return
        stored = {
            key.decode(): Known(self.content(raw), Payment.FromString(raw).version)
            for key, raw in self.store.scan(PAYMENTS, PAYMENTS_BEGIN, 100)
        }
        assert stored == self.payments

    @invariant()
    def the_change_log_is_gapless_after_what_was_pruned(self) -> None:
        if not hasattr(self, "store"):
            return
        changes = [Change.FromString(raw) for _, raw in self.store.scan(CHANGES, b"", 1000)]
        assert [c.sequence for c in changes] == list(range(self.log.pruned + 1, self.log.last + 1))
        assert all(self.shipped[c.sequence] == c.key for c in changes)
        assert all(self.store.get(CHANGES, encode_u64(c.sequence)) for c in changes)
        assert self.log.pruned <= self.log.acknowledged <= self.log.last

    @precondition(lambda self: self.log.marks)
    @invariant()
    def marks_are_ascending_and_after_what_was_pruned(self) -> None:
        sequences = [mark.sequence for mark in self.log.marks]
        assert sequences == sorted(set(sequences))
        assert self.log.pruned < sequences[0]
        assert sequences[-1] <= self.log.last


TestShardAgainstADict = ShardAgainstADict.TestCase
TestShardAgainstADict.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
