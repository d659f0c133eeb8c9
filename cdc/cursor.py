"""How far delivery has come without a gap, and telling the shard so: the only cursor of the change log is the
shard's.

The order, which a crash may cut anywhere:

1. the shard has fsynced the change (the watermark says so),
2. the tailer reads it and hands it to the producer,
3. Kafka's delivery report for it comes, in any order among others,
4. `Delivered.prefix` moves over every span of changes that are all reported and follow without a gap,
5. `Acknowledger` sends that prefix to the shard, one call at a time,
6. the shard stores it durably in `meta`; only after that may it prune.

So a crash between 2 and 6 repeats a change and none can drop one. A failed delivery is no report: the prefix
stops before it until a new producer has delivered it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import structlog

from cdc.record import Record
from cdc.shard_client import ShardApi
from cdc.tailer import Identity
from tollgate.errors import TollgateError
from tollgate.growing_wait import GrowingWait

# A gRPC call and a durable write on the shard each; docs/decisions/0016 has what 20 a second cost. What
# a crash repeats grows by what is delivered in this time. Where requests wait for it (ack=replicated) there
# is no pause: a call tells what came during the one before.
ACKNOWLEDGE_EVERY_S: Final = 0.25
_RETRY_S_MIN: Final = 0.1
_RETRY_S_MAX: Final = 1.0

log = structlog.get_logger()


class Span(NamedTuple):
    """The changes from `first` to `last`: all of them are delivered."""

    first: int
    last: int


class _Sent(NamedTuple):
    """What went to the producer together."""

    last: int
    committed_at_us: int  # of the first of them
    size: int


class Delivered:
    """The contiguous prefix of delivery reports. Pure; its memory is bounded by what is let in flight.

    Bytes and age are those of whole batches: a batch counts until the last of it is delivered.
    """

    def __init__(self) -> None:
        self.identity: Identity | None = None
        self.prefix = 0
        self._sent_through = 0
        self._in_flight: deque[_Sent] = deque()
        self._ahead: dict[int, int] = {}  # first → last of spans behind one that is missing
        self.in_flight_bytes = 0
        self._records_sent = self._bytes_sent = 0

    def restart(self, identity: Identity, acknowledged: int) -> None:
        self.identity = identity
        self.prefix = acknowledged
        self.forget_in_flight()

    def forget_in_flight(self) -> None:
        """The producer is gone and its reports with it; the prefix stands."""
        self._sent_through = self.prefix
        self._in_flight.clear()
        self._ahead.clear()
        self.in_flight_bytes = 0

    def sent(self, records: Sequence[Record]) -> None:
        """At least one, following what was sent before."""
        size = sum(len(record.value) for record in records)
        self._in_flight.append(_Sent(records[-1].sequence, records[0].committed_at_us(), size))
        self._sent_through = records[-1].sequence
        self.in_flight_bytes += size
        self._records_sent += len(records)
        self._bytes_sent += size

    def reported(self, spans: Iterable[Span]) -> int:
        """Takes spans that are delivered, in any order. Returns how far the prefix moved."""
        before = self.prefix
        self._ahead.update(span for span in spans if span.first > before)
        while (last := self._ahead.pop(self.prefix + 1, None)) is not None:
            self.prefix = last
        while self._in_flight and self._in_flight[0].last <= self.prefix:
            self.in_flight_bytes -= self._in_flight.popleft().size
        return self.prefix - before

    @property
    def in_flight(self) -> int:
        return self._sent_through - self.prefix

    @property
    def mean_bytes(self) -> float:
        """Of a change, over all that this process has sent; 0 before the first."""
        return self._bytes_sent / self._records_sent if self._records_sent else 0.0

    def oldest_in_flight_us(self) -> int | None:
        """When the oldest change that was sent and not delivered was committed, or None."""
        return self._in_flight[0].committed_at_us if self._in_flight else None


class Acknowledger:
    """Tells the shard the prefix: coalesced, at most one call in flight, again and again while the shard is
    down."""

    def __init__(self, delivered: Delivered, shard: ShardApi) -> None:
        self._delivered = delivered
        self._shard = shard
        self._moved = asyncio.Event()
        self._identity: Identity | None = None
        self.acknowledged = 0
        self.awaited = False  # as the shard last said: requests wait for what is acknowledged

    def restart(self, identity: Identity, acknowledged: int) -> None:
        self._identity = identity
        self.acknowledged = acknowledged

    def moved(self) -> None:
        """The prefix has moved."""
        self._moved.set()

    async def run(self) -> None:
        """Until cancelled."""
        wait = GrowingWait(_RETRY_S_MIN, _RETRY_S_MAX)
        while True:
            await self._moved.wait()
            self._moved.clear()
            try:
                await self.acknowledge_once()
            except TollgateError as error:
                if wait.fresh:  # said once an outage
                    log.warning("acknowledgement_refused", error=error.message, prefix=self._delivered.prefix)
                self._moved.set()
                await asyncio.sleep(wait.next())
            else:
                wait.reset()
                await asyncio.sleep(0 if self.awaited else ACKNOWLEDGE_EVERY_S)

    async def acknowledge_once(self) -> None:
        """One call when there is anything to tell. Raises TollgateError when the shard doesn't take it."""
        identity, prefix = self._delivered.identity, self._delivered.prefix
        if identity is None or prefix <= self.acknowledged:
            return
        self.awaited = await self._shard.acknowledge(identity, prefix)
        if self._identity == identity:  # not reopened meanwhile
            self.acknowledged = max(self.acknowledged, prefix)
