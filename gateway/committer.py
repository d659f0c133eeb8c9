"""The shard's single writer: everything that changes the store goes through here, one commit at a time.

A commit, in this order:

1. drain the ring, 2. read what the store holds under the entries' keys, 3. plan, 4. write one batch, 5. flush
(on another thread), 6. publish the watermark, 7. give every waiter its result.

The batch forms from what arrives during the flush before it; an idle shard commits at once. What survives a
crash is what was flushed; waiters of anything else have had no answer. Between 4 and 6 the store shows
records that are not durable: `read` answers with what was there before.

Any storage error but a refused write is final: the waiters fail, `failure` is set, nothing is ever written
again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from gateway.change_log import Identity, LogState
from gateway.errors import NotReady, StoreBusy, StoreFailed
from gateway.flusher import Flusher
from gateway.metrics import Metrics
from gateway.planner import Acceptance, Entry, Plan, Planner, Result, StatusBatch, WebhookReceipt, keys_of
from gateway.ring import Ring
from gateway.store.interface import Store
from tollgate.clock import Clock
from tollgate.errors import OperationalError, TollgateError
from tollgate.shard_layout import PAYMENTS
from tollgate.watermark import Watermark, WatermarkWriter

OnResult = Callable[[Result], None]
HandOver = Callable[[Entry, OnResult], None]


class Waiting:
    """An entry and who waits for its result; told once, whoever tells first."""

    __slots__ = ("_on_result", "entry")

    def __init__(self, entry: Entry, on_result: OnResult) -> None:
        self.entry = entry
        self._on_result: OnResult | None = on_result

    def tell(self, result: Result) -> None:
        on_result, self._on_result = self._on_result, None
        if on_result is not None:  # else the watchdog has answered already
            on_result(result)


@dataclass(slots=True)
class _Commit:
    """The one commit in flight."""

    batch: list[Waiting]
    plan: Plan
    before: dict[str, bytes | None]  # of the payments it touches, as they are on disk
    began: float
    written: float


class Committer:
    """Belongs to one event loop. `on_failure` is called once, when the store can't be trusted any more."""

    def __init__(
        self,
        *,
        store: Store,
        identity: Identity,
        log: LogState,
        ring: Ring[Waiting],
        flusher: Flusher,
        watermark: WatermarkWriter,
        clock: Clock,
        metrics: Metrics,
        batch_count_max: int,
        on_failure: Callable[[StoreFailed], None],
    ) -> None:
        self.identity = identity
        self.durable = log
        self.failure: StoreFailed | None = None
        self._store = store
        self._ring = ring
        self._planner = Planner(identity)
        self._flusher = flusher
        self._watermark = watermark
        self._clock = clock
        self._metrics = metrics
        self._batch_count_max = batch_count_max
        self._on_failure = on_failure
        self._commit: _Commit | None = None
        self._scheduled = False
        self._publish()

    @property
    def ring(self) -> Ring[Waiting]:
        return self._ring

    def hand_over(self, entry: Entry, on_result: OnResult) -> None:
        """Calls `on_result` once, on the loop, when the result is durable. Raises RingFull and NotReady."""
        if self.failure is not None:
            raise _failed(self.failure)
        self._ring.push(Waiting(entry, on_result), _size(entry))
        if self._commit is None:
            self._schedule()

    def submit(self, entry: Entry) -> asyncio.Future[Result]:
        """The future of the entry's result. Raises RingFull and NotReady.

        Cancelling the future doesn't take the entry back.
        """
        waiter: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

        def resolve(result: Result) -> None:
            if not waiter.done():  # its client may have gone
                waiter.set_result(result)

        self.hand_over(entry, resolve)
        return waiter

    async def commit(self, entry: Entry) -> Result:
        """Submits and waits. Raises the result when it is an error."""
        result = await self.submit(entry)
        if isinstance(result, TollgateError):
            raise result
        return result

    def read(self, key: str) -> bytes | None:
        """The payment as it is on disk. Raises NotReady: a failed read is fatal too."""
        if self.failure is not None:
            raise _failed(self.failure)
        if self._commit is not None and key in self._commit.before:
            return self._commit.before[key]
        try:
            return self._store.get(PAYMENTS, key.encode())
        except StoreFailed as error:
            raise self.fail(error) from error

    def commit_age(self) -> float:
        """Seconds since the commit in flight began; 0 when there is none."""
        return 0.0 if self._commit is None else self._clock.monotonic() - self._commit.began

    @property
    def idle(self) -> bool:
        return self._commit is None and not self._ring

    def abandon(self, reason: str) -> None:
        """Answers everyone who waits with NotReady. What is being written may still come to stand."""
        batch = [] if self._commit is None else self._commit.batch
        for waiting in (*batch, *self._ring.drain(self._ring.slots)):
            waiting.tell(NotReady(reason))

    def fail(self, error: StoreFailed) -> NotReady:
        """The end of this store in this process. Returns what to tell whoever asks."""
        if self.failure is None:
            self.failure = error
            self.abandon(_failed(error).message)
            self._on_failure(error)
        return _failed(self.failure)

    def _schedule(self) -> None:
        """The next commit, in the next turn of the loop: what can be read by then joins the batch.

        Beginning it at once leaves two groups of clients that take turns, each with half of the batch: at 32
        connections to the shard alone that is 7.9k a second in place of 12k.
        """
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        self._scheduled = False
        if self._commit is not None:  # asked for by somebody whom this very call has answered
            return
        while self._ring and self.failure is None:
            batch = self._ring.drain(self._batch_count_max)
            try:
                if self._start(batch):
                    return
            except StoreBusy as refusal:
                _resolve_all(batch, refusal)
            except (StoreFailed, DecodeError) as error:
                if isinstance(error, DecodeError):
                    error = StoreFailed(f"A stored payment can't be read: {error}.")
                _resolve_all(batch, self.fail(error))

    def _start(self, batch: list[Waiting]) -> bool:
        """Steps 1 to 5. False when the batch changes nothing, and then it is answered already."""
        began = self._clock.monotonic()
        entries = [waiting.entry for waiting in batch]
        keys = keys_of(entries)
        found = dict(zip(keys, self._store.get_many(PAYMENTS, [key.encode() for key in keys]), strict=True))
        plan = self._planner.plan(entries, found, self.durable, self._clock.now_us())
        if not plan.operations:
            self._answer(batch, plan)
            return False
        self._store.write(plan.operations)
        before = {key: found[key] for key in plan.touched}
        self._commit = _Commit(batch, plan, before, began, self._clock.monotonic())
        self._flusher.flush(self._flushed)
        return True

    def _flushed(self, error: StoreFailed | None) -> None:
        """Steps 6 and 7."""
        commit = self._commit
        if commit is None or self.failure is not None:
            return
        if error is not None:
            self.fail(error)
            return
        self.durable = commit.plan.log
        try:
            self._publish()
        except OperationalError as problem:
            self.fail(StoreFailed(problem.message))
            return
        self._commit = None
        now = self._clock.monotonic()
        self._metrics.committed(len(commit.batch), now - commit.began, now - commit.written)
        self._schedule()
        self._answer(commit.batch, commit.plan)

    def _publish(self) -> None:
        incarnation, epoch = self.identity.incarnation, self.identity.epoch
        self._watermark.publish(Watermark(incarnation, epoch, self.durable.last))

    @staticmethod
    def _answer(batch: list[Waiting], plan: Plan) -> None:
        for waiting, result in zip(batch, plan.results, strict=True):
            waiting.tell(result)


def _size(entry: Entry) -> int:
    """Roughly what the entry holds in memory."""
    if isinstance(entry, Acceptance):
        return len(entry.payment)
    if isinstance(entry, StatusBatch):
        return sum(len(snapshot.payment) for snapshot in entry.snapshots)
    if isinstance(entry, WebhookReceipt):
        return sum(len(event.body) for event in entry.events)
    return 0


def _failed(error: StoreFailed) -> NotReady:
    return NotReady(f"The shard's store failed and it is about to restart. {error.message}")


def _resolve_all(batch: list[Waiting], result: Result) -> None:
    for waiting in batch:
        waiting.tell(result)
