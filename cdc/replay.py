"""`tollgate cdc replay`: changes that the shard still keeps, shipped to payments.changes once more.

The same bytes, key and headers as the first time, so intake knows each by its own id (shard, incarnation,
epoch, sequence) and each payment by its (merchant, checkout id). What Postgres has already only makes it tell
the shard again how the payment stands.

What is kept of order: among themselves the changes come in theirs, per key. Beside a tailer that ships on,
nothing is promised and nothing is needed. Only what was acknowledged is taken, so every record of a replay
repeats an earlier one of its partition: first occurrences, the only ones that anybody acts on, stay in order,
and an acceptance that comes again behind later changes of its payment is known and changes nothing. The
cursor is the shard's and is not moved.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple, Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from cdc.comparison import expected_headers
from cdc.home import Home
from cdc.shard_log import LogState
from tollgate.errors import OperationalError, RejectedInput
from tollgate.topics import CHANGES
from tollgate.v1.change_pb2 import Change

_POLL_S: Final = 0.1
_LOOK_EVERY: Final = 500


class Span(NamedTuple):
    """Changes first … last, both of them; empty when last is below first."""

    first: int
    last: int

    @property
    def size(self) -> int:
        return max(0, self.last - self.first + 1)


class Rows(Protocol):
    def rows(self, after: int, up_to: int) -> Iterator[tuple[int, bytes]]: ...


def span_of(state: LogState, first: int | None, last: int | None) -> Span:
    """What was asked for, of what can be shipped again. Raises RejectedInput with what can, else."""
    kept = Span(state.pruned + 1, state.acknowledged)
    span = Span(kept.first if first is None else first, kept.last if last is None else last)
    if first is None and last is None:
        return span
    valid = (
        f"Shard {state.shard} can replay {kept.first} to {kept.last}."
        if kept.size
        else f"Shard {state.shard} keeps no change that was shipped: there is nothing to replay."
    )
    if span.size == 0:
        raise RejectedInput(f"There is no change from {span.first} to {span.last}. {valid}")
    if span.first < kept.first:
        raise RejectedInput(f"Changes up to {state.pruned} are pruned from shard {state.shard}. {valid}")
    if span.last > state.durable:
        raise RejectedInput(f"Change {span.last} is not durable yet. {valid}")
    if span.last > kept.last:
        raise RejectedInput(
            f"Change {span.last} is not delivered yet: the tailer ships it, and a replay would put it before "
            f"others. {valid}"
        )
    return span


def replay(
    log: Rows,
    span: Span,
    config: Mapping[str, str | int | float | bool],
    progress: Callable[[int], None] = lambda _delivered: None,
    silence_s_max: float = 30.0,
) -> int:
    """Blocking. Returns how many were delivered: all of `span`. `config` is a tailer's producer's.

    Raises OperationalError, which says how many were, when it can't go on.
    """
    return _Replay(span, config, progress, silence_s_max).run(log)


class _Replay:
    def __init__(
        self,
        span: Span,
        config: Mapping[str, str | int | float | bool],
        progress: Callable[[int], None],
        silence_s_max: float,
    ) -> None:
        self._span = span
        self._progress = progress
        self._silence_s_max = silence_s_max
        self._delivered = 0
        self._problem: str | None = None
        self._producer = Producer({**config, "error_cb": self._on_error})
        self._heard = time.monotonic()

    def run(self, log: Rows) -> int:
        try:
            partitions = self._partitions()
            expected = self._span.first
            for sequence, value in log.rows(self._span.first - 1, self._span.last):
                if sequence != expected:
                    break
                self._produce(value, partitions)
                if sequence % _LOOK_EVERY == 0:
                    self._poll(0)
                expected += 1
            while self._delivered < expected - self._span.first:
                self._poll(_POLL_S)
        except KafkaException as error:
            raise self._failed(error.args[0].str()) from error
        finally:
            self._producer.purge()
            self._producer.flush(1)  # what was purged is reported, and the client's threads end
        if expected <= self._span.last:
            raise self._failed(f"change {expected} is no longer in the log: the shard prunes what is old")
        return self._delivered

    def _partitions(self) -> int:
        topic = self._producer.list_topics(CHANGES, timeout=self._silence_s_max).topics[CHANGES]
        if topic.error is not None:
            raise KafkaException(topic.error)
        return len(topic.partitions)

    def _produce(self, value: bytes, partitions: int) -> None:
        change = Change.FromString(value)
        key = change.key.encode()
        home = Home(change.shard, partitions).of(key)
        while True:
            try:
                self._producer.produce(
                    CHANGES,
                    key=key,
                    partition=home,
                    value=value,
                    headers=list(expected_headers(change)),
                    on_delivery=self._on_delivery,
                )
            except BufferError:
                self._poll(_POLL_S)
            else:
                return

    def _poll(self, timeout_s: float) -> None:
        self._producer.poll(timeout_s)
        self._progress(self._delivered)
        if self._problem is None and time.monotonic() - self._heard > self._silence_s_max:
            self._problem = f"Kafka has confirmed nothing for {self._silence_s_max:g} s"
        if self._problem is not None:
            raise self._failed(self._problem)

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        """Only an offset proves that it is in the topic."""
        self._heard = time.monotonic()
        if error is None and message.offset() is not None:
            self._delivered += 1
        elif self._problem is None:
            self._problem = "a success without an offset" if error is None else error.str()

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal() and self._problem is None:
            self._problem = error.str()

    def _failed(self, reason: str) -> OperationalError:
        first, last = self._span
        return OperationalError(
            f"The replay of {first} to {last} stopped: {reason}. Of {self._span.size}, {self._delivered} "
            "were delivered. Run it again, whole or in part: what comes twice is recognised."
        )
