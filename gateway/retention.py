"""What leaves the shard by itself: shipped changes after a day, settled payments after a month.

Bounded per tick. Nothing is lost by it: changes are in Kafka, payments in Postgres, and every removal goes
through the committer, which checks again. A clock that is not to be believed removes nothing by age.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from gateway.change_log import RetentionPolicy, prunable
from gateway.clock_trust import ClockTrust
from gateway.committer import Committer
from gateway.errors import StoreFailed
from gateway.planner import Departure, Pruning
from gateway.store.interface import Store
from gateway.wire import UPDATED_AT
from tollgate.clock import Clock
from tollgate.shard_layout import PAYMENTS, PAYMENTS_BEGIN
from tollgate.status import AUTHORIZED, OPEN
from tollgate.v1.payment_pb2 import OperationStatus, Payment
from tollgate.varint import varint_at

# Read on the event loop at about 2 us a record: 1 ms a tick, and 4 million payments a day at one tick in 10
# s.
SCAN_PER_TICK: Final = 500


def may_be_older(raw: bytes, than_us: int) -> bool:
    """False only when the stored payment was last changed at `than_us` or later. Makes no payment of it.

    Nearly all that the scan sees are young. A payment made for each would make protobuf trim the heap now and
    then, which takes freed memtables from RocksDB (see `gateway/wire.py`). What looks like the field in a
    text only makes the answer True.
    """
    at = raw.find(UPDATED_AT)
    if at < 0:
        return True
    while at >= 0:
        if varint_at(raw, at + len(UPDATED_AT)) < than_us:
            return True
        at = raw.find(UPDATED_AT, at + 1)
    return False


def may_leave(payment: Payment, older_than_us: int) -> bool:
    """Neither open nor authorized, without an open operation, and last changed before `older_than_us`."""
    settled = payment.status not in OPEN and payment.status != AUTHORIZED
    working = any(op.status == OperationStatus.OPERATION_STATUS_PENDING for op in payment.operations)
    return settled and not working and payment.updated_at_us < older_than_us


@dataclass(slots=True)
class Retention:
    """The scan of payments goes round and round; where it stands is not kept."""

    committer: Committer
    store: Store
    clock: Clock
    changes: RetentionPolicy
    payments_age_us: int
    trust: ClockTrust
    _cursor: bytes = PAYMENTS_BEGIN

    async def tick(self) -> None:
        """Raises what the committer raises: Overloaded, NotReady."""
        now_us = self.clock.now_us()
        trusted = self.trust.is_trusted(now_us, self.clock.monotonic())
        policy = self.changes if trusted else self.changes.by_size_alone()
        through = prunable(self.committer.durable, policy, now_us)
        if through is not None:
            await self.committer.commit(Pruning(through))
        if trusted:
            await asyncio.gather(*map(self.committer.commit, self._departures(now_us)))

    def _departures(self, now_us: int) -> list[Departure]:
        try:
            rows = self.store.scan(PAYMENTS, self._cursor, SCAN_PER_TICK)
        except StoreFailed as error:
            raise self.committer.fail(error) from error
        self._cursor = rows[-1][0] + b"\0" if len(rows) == SCAN_PER_TICK else PAYMENTS_BEGIN
        older_than_us = now_us - self.payments_age_us
        old = ((key, raw) for key, raw in rows if may_be_older(raw, older_than_us))
        found = ((key, Payment.FromString(raw)) for key, raw in old)
        return [Departure(key.decode(), p.version) for key, p in found if may_leave(p, older_than_us)]
