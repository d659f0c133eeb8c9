"""A payment as Postgres has decided it, on its way into this shard's store."""

from __future__ import annotations

import asyncio
from typing import Final

from gateway.committer import Committer
from gateway.errors import NotReady
from gateway.planner import Snapshot, StatusBatch
from gateway.retention import may_leave
from tollgate.clock import Clock
from tollgate.errors import Overloaded, TollgateError
from tollgate.ids import CHECKOUT_ID, MERCHANT, payment_key
from tollgate.status import NAME
from tollgate.v1.payment_pb2 import Capture, Payment

_CAPTURES: Final = (Capture.CAPTURE_AUTOMATIC, Capture.CAPTURE_MANUAL)


def snapshot_of(payment: Payment) -> Snapshot:
    key = payment_key(payment.merchant, payment.checkout_id)
    return Snapshot(key, payment.version, payment.SerializeToString())


def is_storable(payment: Payment) -> bool:
    """What a client can be shown: anything else would poison the route that reads it."""
    return (
        payment.version >= 1
        and MERCHANT.fullmatch(payment.merchant) is not None
        and CHECKOUT_ID.fullmatch(payment.checkout_id) is not None
        and payment.status in NAME
        and payment.capture in _CAPTURES
    )


class Keeper:
    """Stores what was found elsewhere as if it had been sent here. Best effort: it can be found again."""

    def __init__(self, committer: Committer, clock: Clock, payments_age_us: int) -> None:
        self._committer = committer
        self._clock = clock
        self._payments_age_us = payments_age_us

    async def keep(self, payment: Payment, *, own: bool, within_s: float) -> bool:
        """Whether no read of this shard's disk shows it older from now on. False: it was refused, or the disk
        failed or takes too long.

        What this shard does not own would grow old here unseen; so would, at once, what leaves by its age.
        Both are stored only where an older one is already, which would be shown.
        """
        key = payment_key(payment.merchant, payment.checkout_id)
        try:
            is_here = self._committer.read(key) is not None
            if not is_here and (not own or may_leave(payment, self._clock.now_us() - self._payments_age_us)):
                return True
            if not is_storable(payment):
                return False
            stored = self._committer.submit(StatusBatch((snapshot_of(payment),)))
        except (Overloaded, NotReady):
            return False
        await asyncio.wait({stored}, timeout=within_s)
        return stored.done() and not isinstance(stored.result(), TollgateError)
