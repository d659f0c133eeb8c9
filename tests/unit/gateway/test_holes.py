"""Sound files with something missing between them: a store with a hole is not served."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.change_log import LogState, Mark
from gateway.planner import Acceptance, Acknowledgement, Entry, Planner, Pruning
from gateway.store.interface import Delete, Operation
from gateway.store.memory import Disk, MemoryStore
from gateway.store.opening import open_store
from tollgate.errors import CorruptionError
from tollgate.shard_layout import CHANGES, META, PAYMENTS, encode_u64
from tollgate.v1.payment_pb2 import Payment

INCARNATION = b"\7" * 16
PAYMENT = Payment(description="x" * 100_000).SerializeToString()


def reopened(disk: Disk) -> LogState:
    return open_store(MemoryStore(disk), 3, lambda count: INCARNATION[:count]).log


def commit(disk: Disk, log: LogState, *entries: Entry) -> LogState:
    store = MemoryStore(disk)
    identity = open_store(store, 3, lambda count: INCARNATION[:count]).identity
    acknowledged = [
        entry._replace(epoch=identity.epoch) if isinstance(entry, Acknowledgement) else entry
        for entry in entries
    ]
    found = {entry.key: None for entry in entries if isinstance(entry, Acceptance)}
    plan = Planner(identity).plan(acknowledged, found, log, 1)
    store.write(plan.operations)
    store.flush()
    return plan.log


def filled(disk: Disk, count: int = 14) -> LogState:
    """Changes of 100 kB: three to a piece of the log, and some after the last mark."""
    log = reopened(disk)
    for number in range(count):
        log = commit(disk, log, Acceptance(f"acme/order-{number:04}", PAYMENT, b"", ""))
    return log


def without(disk: Disk, *operations: Operation) -> Disk:
    store = MemoryStore(disk)
    store.write(operations)
    store.flush()
    return disk


def third(log: LogState) -> Mark:
    assert [mark.sequence for mark in log.marks] == [3, 6, 9, 12]
    assert [mark.previous for mark in log.marks] == [0, 3, 6, 9]
    return log.marks[2]


def test_a_whole_log_is_served_before_and_after_pruning() -> None:
    disk = Disk()
    log = filled(disk)
    assert reopened(disk) == log
    log = commit(disk, log, Acknowledgement(INCARNATION, 0, 13))
    log = commit(disk, log, Pruning(6))
    assert reopened(disk).marks == log.marks
    log = commit(disk, log, Pruning(12))
    log = commit(disk, log, *(Acceptance(f"acme/late-{n:05}", PAYMENT, b"", "") for n in range(4)))
    assert [(mark.sequence, mark.previous) for mark in reopened(disk).marks] == [(18, 12)]


def lost_mark(mark: Mark) -> Operation:
    return Delete(META, mark.key())


def lost_witness(mark: Mark) -> Operation:
    return Delete(PAYMENTS, mark.witness())


def lost_change(mark: Mark) -> Operation:
    return Delete(CHANGES, encode_u64(mark.sequence))


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lost_mark, "between 6 and 12 is missing"),
        (lost_witness, "payments that came with change 9 are missing"),
        (lost_change, "change 9 is missing"),
        (lambda _: Delete(CHANGES, encode_u64(13)), "change 13 is missing"),
    ],
)
def test_a_family_that_lost_a_piece_is_noticed(loss: Callable[[Mark], Operation], said: str) -> None:
    disk = Disk()
    mark = third(filled(disk))
    with pytest.raises(CorruptionError, match=said):
        reopened(without(disk, loss(mark)))
