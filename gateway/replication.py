"""ack=replicated: a client hears of a payment once Kafka has confirmed its change, and not before.

Owns the requests whose commit is durable here and whose proof is still to come. The proof is the tailer's
AcknowledgeChanges: it moves over a contiguous prefix of Kafka's delivery reports, so a sequence that it has
reached is in the log of every in-sync replica.

A request, in this order:

1. there is room for it to wait, else `overloaded`; Kafka is not silent, else `not_ready` and nothing is
   stored (ids that are here already are let through: most of them are proven), 2. the commit, as without
   this, 3. wait until the proof has reached its change, or its time is over: then `not_ready`, and the
   payment stands, 4. the answer.

A replay and a conflict tell of a payment as much as its 202 does, and so does a read: the first two wait for
the same proof, a read doesn't wait and answers `not_ready`. A payment of version 1 or above has come back
from Postgres and needs no proof.

The proof counts on receipt. That it is stored too, for the next start, is `keep`: until then a crash makes
the tailer ship again what was proven, which is harmless. What survives is the acknowledged sequence in
`meta`; requests that wait die with the process, unanswered.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from gateway.committer import Committer, OnResult
from gateway.errors import NotReady, ProofsFull
from gateway.metrics import Metrics
from gateway.planner import Accept, Acceptance, Acknowledgement, Conflict, Entry, Replay, Result, refusal_of
from tollgate.clock import Clock
from tollgate.errors import TollgateError
from tollgate.v1.payment_pb2 import Payment


@dataclass(frozen=True, slots=True)
class ReplicationPolicy:
    """Bounds of what waits: each request's time, their number, and the bytes of their payments."""

    wait_s: float
    requests_max: int
    bytes_max: int


class _Waiting(NamedTuple):
    """A durable result that may be told when everything up to `sequence` is proven."""

    sequence: int
    since: float
    size_bytes: int
    result: Result
    on_result: OnResult


class Replication:
    """Belongs to the committer's event loop. `expire` and `keep` are called again and again."""

    def __init__(
        self, committer: Committer, clock: Clock, metrics: Metrics, policy: ReplicationPolicy
    ) -> None:
        self._committer = committer
        self._clock = clock
        self._metrics = metrics
        self._policy = policy
        self._opening = (committer.identity.incarnation, committer.identity.epoch)
        self._proven = committer.durable.acknowledged
        self._waiting: deque[_Waiting] = deque()  # ascending in sequence and in time
        self._held = 0  # requests between hand_over and their answer
        self._held_bytes = 0
        self._overdue = False  # a request ran out of time and no proof has come since

    def hand_over(self, entry: Entry, on_result: OnResult) -> None:
        """As the committer's; what it accepts is told when it is proven. Raises Overloaded and NotReady."""
        if not isinstance(entry, Acceptance):
            self._committer.hand_over(entry, on_result)
            return
        size_bytes = len(entry.payment)
        self._check_room(size_bytes)
        if self.silent and self._committer.read(entry.key) is None:
            raise NotReady(self._silence("Nothing was stored."))
        self._committer.hand_over(entry, partial(self._durable, size_bytes, on_result))
        self._held += 1
        self._held_bytes += size_bytes

    @property
    def waiting(self) -> int:
        return self._held

    @property
    def silent(self) -> bool:
        """Kafka owes a proof for longer than a request waits: until it speaks again nobody waits for it."""
        return self._overdue and self._proven < self._committer.durable.last

    def check_proven(self, payment: Payment) -> None:
        """Raises NotReady for a stored payment that may not be told of yet."""
        if _needed(payment) > self._proven:
            raise NotReady("Kafka has not confirmed this payment yet. Ask again.")

    def confirmed(self, proof: Acknowledgement) -> None:
        """Everything up to the proof is in Kafka. Takes nothing when it raises RejectedInput or NotReady."""
        if self._committer.failure is not None:
            raise NotReady(self._committer.failure.message)
        refusal = refusal_of(proof, self._opening, self._committer.durable)
        if refusal is not None:
            raise refusal
        self._overdue = False
        self._proven = max(self._proven, proof.sequence)
        now = self._clock.monotonic()
        while self._waiting and self._waiting[0].sequence <= self._proven:
            waiting = self._waiting.popleft()
            self._metrics.replicated(now - waiting.since)
            self._tell(waiting.size_bytes, waiting.on_result, waiting.result)

    def expire(self) -> None:
        """Answers who has waited as long as a request may."""
        begun = self._clock.monotonic() - self._policy.wait_s
        while self._waiting and self._waiting[0].since <= begun:
            waiting = self._waiting.popleft()
            self._overdue = True
            self._metrics.replication_timeouts.inc()
            problem = NotReady(self._silence("The payment may stand: retry with the same id."))
            self._tell(waiting.size_bytes, waiting.on_result, problem)

    async def keep(self) -> None:
        """Stores how far the proof has come. Raises NotReady and Overloaded."""
        if self._proven > self._committer.durable.acknowledged:
            await self._committer.commit(Acknowledgement(*self._opening, self._proven))

    def abandon(self, reason: str) -> None:
        """Answers everyone who waits with NotReady. Their payments stand here, and may be in Kafka."""
        while self._waiting:
            waiting = self._waiting.popleft()
            self._tell(waiting.size_bytes, waiting.on_result, NotReady(reason))

    def _durable(self, size_bytes: int, on_result: OnResult, result: Result) -> None:
        """The commit has come to `result`."""
        sequence = _needed_for(result)
        if sequence <= self._proven:
            self._tell(size_bytes, on_result, result)
        elif self.silent:
            problem = NotReady(self._silence("The payment may stand: retry with the same id."))
            self._tell(size_bytes, on_result, problem)
        else:
            if self._waiting:  # a replay waits for those before it too, which keeps the order
                sequence = max(sequence, self._waiting[-1].sequence)
            now = self._clock.monotonic()
            self._waiting.append(_Waiting(sequence, now, size_bytes, result, on_result))

    def _tell(self, size_bytes: int, on_result: OnResult, result: Result) -> None:
        self._held -= 1
        self._held_bytes -= size_bytes
        on_result(result)

    def _check_room(self, size_bytes: int) -> None:
        policy = self._policy
        if self._held >= policy.requests_max or self._held_bytes + size_bytes > policy.bytes_max:
            raise ProofsFull(
                "As many requests as may wait for Kafka do. Nothing was stored. Retry with the same id."
            )

    def _silence(self, consequence: str) -> str:
        return f"Kafka has not confirmed what was stored {self._policy.wait_s:g} s ago. {consequence}"


def _needed_for(result: Result) -> int:
    """The sequence that must be proven before `result` is told; 0: none."""
    match result:
        case Accept(sequence):
            return sequence
        case Replay(stored) | Conflict(stored):
            return _needed(Payment.FromString(stored))
        case TollgateError():
            return 0
        case other:
            raise TypeError(f"an acceptance can't come to {type(other).__name__}")


def _needed(payment: Payment) -> int:
    return 0 if payment.version else payment.change_sequence
