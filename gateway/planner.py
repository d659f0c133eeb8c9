"""What one commit does: decided from the waiting entries and what the store holds. Pure; no I/O, no clock.

The committer is the only writer of the store, so every change of it is an entry here: acceptances, webhooks,
statuses, acknowledgements, pruning, the merchants' copy, payments that leave. Entries are decided in order,
each seeing what the ones before it in the same batch will have done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from gateway.change_log import ChangeWriter, Identity, LogState, stored_payment
from gateway.errors import BeyondDurable, WrongOpening
from gateway.store.interface import Delete, DeleteRange, Operation, Put
from tollgate.errors import RejectedInput, TollgateError
from tollgate.shard_layout import (
    CHANGES,
    META,
    META_ACKNOWLEDGED,
    META_LAST_SEQUENCE,
    META_MERCHANTS,
    META_PRUNED,
    PAYMENTS,
    encode_u64,
)
from tollgate.v1.payment_pb2 import Payment
from tollgate.webhooks.interface import WebhookEvent


class Acceptance(NamedTuple):
    """A payment to take in, serialized once: as it will be stored and as the change log will carry it."""

    key: str
    payment: bytes
    fingerprint: bytes
    traceparent: str


class Snapshot(NamedTuple):
    key: str
    version: int
    payment: bytes


class StatusBatch(NamedTuple):
    snapshots: tuple[Snapshot, ...]


class Acknowledgement(NamedTuple):
    """Speaks of one opening of one store: a later one may have lost its tail and given the numbers anew."""

    incarnation: bytes
    epoch: int
    sequence: int


class Pruning(NamedTuple):
    through: int


class MerchantsCopy(NamedTuple):
    serialized: bytes


class WebhookReceipt(NamedTuple):
    """Events that a PSP sent together, verified: each becomes a change of its own, all of them or none."""

    psp: str
    events: tuple[WebhookEvent, ...]
    received_at_us: int
    traceparent: str


class Departure(NamedTuple):
    """A payment that may leave, if it is still at `version`."""

    key: str
    version: int


def refusal_of(entry: Acknowledgement, opening: tuple[bytes, int], durable: LogState) -> RejectedInput | None:
    """Why an acknowledgement can't be true of this opening of the store, or None."""
    if (entry.incarnation, entry.epoch) != opening:
        return WrongOpening(
            "The store was opened anew since, or is another one. Reopen it and read on from its cursor."
        )
    if entry.sequence > durable.last:
        return BeyondDurable(
            f"Sequence {entry.sequence} is beyond {durable.last}, the last one on disk here. "
            "Nothing was acknowledged."
        )
    return None


Entry = Acceptance | StatusBatch | Acknowledgement | Pruning | MerchantsCopy | Departure | WebhookReceipt


class Accept(NamedTuple):
    sequence: int


class Replay(NamedTuple):
    """The same id with the same content: the payment as it is."""

    payment: bytes


class Conflict(NamedTuple):
    """The same id with other content: the payment that has it."""

    payment: bytes


class Applied(NamedTuple):
    applied: int
    ignored: int


class Acknowledged(NamedTuple):
    sequence: int


class Done(NamedTuple):
    pass


Result = Accept | Replay | Conflict | Applied | Acknowledged | Done | TollgateError


@dataclass(frozen=True, slots=True)
class Plan:
    """`results`, one an entry, are true once `operations` are on disk. `log` is the state then."""

    operations: list[Operation]
    results: list[Result]
    log: LogState
    touched: frozenset[str]  # the payments that `operations` change


def keys_of(entries: Iterable[Entry]) -> list[str]:
    """The payments that `plan` must know: what the store holds under these goes into `found`."""
    keys: dict[str, None] = {}
    for entry in entries:
        if isinstance(entry, Acceptance | Departure):
            keys[entry.key] = None
        elif isinstance(entry, StatusBatch):
            keys.update((snapshot.key, None) for snapshot in entry.snapshots)
    return list(keys)


class Planner:
    """Decides for one opened store."""

    def __init__(self, identity: Identity) -> None:
        self._opening = (identity.incarnation, identity.epoch)
        self._changes = ChangeWriter(identity)

    def plan(
        self, entries: Sequence[Entry], found: Mapping[str, bytes | None], log: LogState, now_us: int
    ) -> Plan:
        """`found` has every key of `keys_of(entries)`; `log` is durable."""
        draft = _Draft(self._changes, self._opening, dict(found), log, now_us)
        results = [draft.decide(entry) for entry in entries]
        return draft.finish(results)


class _Draft:
    """One plan in the making: payments and log as they will be after the entries decided so far."""

    def __init__(
        self,
        changes: ChangeWriter,
        opening: tuple[bytes, int],
        payments: dict[str, bytes | None],
        log: LogState,
        now_us: int,
    ) -> None:
        self._changes = changes
        self._opening = opening
        self._payments = payments
        self._durable = log
        self._now_us = now_us
        self._last = log.last
        self._bytes_total = log.bytes_total
        self._log = log
        self._operations: list[Operation] = []
        self._touched: set[str] = set()

    def decide(self, entry: Entry) -> Result:
        match entry:
            case Acceptance():
                return self._accept(entry)
            case StatusBatch():
                applied = sum(map(self._apply, entry.snapshots))
                return Applied(applied, len(entry.snapshots) - applied)
            case Acknowledgement():
                return self._acknowledge(entry)
            case Pruning():
                return self._prune(entry)
            case MerchantsCopy():
                self._operations.append(Put(META, META_MERCHANTS, entry.serialized))
                return Done()
            case Departure():
                return self._depart(entry)
            case WebhookReceipt():
                return self._receive(entry)

    def finish(self, results: list[Result]) -> Plan:
        log = replace(self._log, last=self._last, bytes_total=self._bytes_total)
        if self._last != self._durable.last:
            self._operations.append(Put(META, META_LAST_SEQUENCE, encode_u64(self._last)))
            if log.needs_mark():
                mark = log.next_mark(self._now_us)
                self._operations.append(Put(META, mark.key(), mark.value()))
                self._operations.append(Put(PAYMENTS, mark.witness(), b""))
                log = replace(log, marks=(*log.marks, mark))
        return Plan(self._operations, results, log, frozenset(self._touched))

    def _accept(self, entry: Acceptance) -> Result:
        stored = self._payments[entry.key]
        if stored is not None:
            same = Payment.FromString(stored).fingerprint == entry.fingerprint
            return Replay(stored) if same else Conflict(stored)
        self._last += 1
        change = self._changes.acceptance(
            entry.key, self._last, self._now_us, entry.traceparent, entry.payment
        )
        self._bytes_total += len(change)
        self._put(entry.key, stored_payment(entry.payment, self._last))
        self._operations.append(Put(CHANGES, encode_u64(self._last), change))
        return Accept(self._last)

    def _apply(self, snapshot: Snapshot) -> bool:
        """Whether it is news. A payment that is unknown here is stored too: it heals a replaced volume."""
        stored = self._payments[snapshot.key]
        if stored is not None and Payment.FromString(stored).version >= snapshot.version:
            return False
        self._put(snapshot.key, snapshot.payment)
        return True

    def _acknowledge(self, entry: Acknowledgement) -> Result:
        refusal = refusal_of(entry, self._opening, self._durable)
        if refusal is not None:
            return refusal
        if entry.sequence > self._log.acknowledged:
            self._log = replace(self._log, acknowledged=entry.sequence)
            self._operations.append(Put(META, META_ACKNOWLEDGED, encode_u64(entry.sequence)))
        return Acknowledged(self._log.acknowledged)

    def _prune(self, entry: Pruning) -> Result:
        log, through = self._log, entry.through
        if through > log.acknowledged:
            return BeyondDurable(f"Sequence {through} is not acknowledged yet. Nothing was pruned.")
        if through > log.pruned:
            gone = [mark for mark in log.marks if mark.sequence <= through]
            self._operations.append(DeleteRange(CHANGES, encode_u64(log.pruned + 1), encode_u64(through + 1)))
            self._operations += [Delete(META, mark.key()) for mark in gone]
            self._operations += [Delete(PAYMENTS, mark.witness()) for mark in gone]
            self._operations.append(Put(META, META_PRUNED, encode_u64(through)))
            self._log = replace(log, pruned=through, marks=log.marks[len(gone) :])
        return Done()

    def _depart(self, entry: Departure) -> Result:
        stored = self._payments[entry.key]
        if stored is not None and Payment.FromString(stored).version == entry.version:
            self._payments[entry.key] = None
            self._touched.add(entry.key)
            self._operations.append(Delete(PAYMENTS, entry.key.encode()))
        return Done()

    def _receive(self, entry: WebhookReceipt) -> Result:
        for event in entry.events:
            self._last += 1
            change = self._changes.webhook(
                entry.psp, event, entry.received_at_us, self._last, self._now_us, entry.traceparent
            )
            self._bytes_total += len(change)
            self._operations.append(Put(CHANGES, encode_u64(self._last), change))
        return Accept(self._last)

    def _put(self, key: str, payment: bytes) -> None:
        self._payments[key] = payment
        self._touched.add(key)
        self._operations.append(Put(PAYMENTS, key.encode(), payment))
