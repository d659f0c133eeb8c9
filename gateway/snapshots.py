"""A payment as Postgres has decided it, on its way into this shard's store."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from gateway.committer import Committer
from gateway.errors import NotReady
from gateway.planner import Result, Snapshot, StatusBatch
from gateway.retention import may_leave
from tollgate.clock import Clock
from tollgate.errors import Overloaded
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

    def keep(self, payment: Payment) -> asyncio.Future[Result] | None:
        """Only what Postgres has decided, and nothing that would leave again at once. Done when it is on disk
        or has failed; None: it is not stored.
        """
        if is_storable(payment) and not may_leave(payment, self._clock.now_us() - self._payments_age_us):
            with suppress(Overloaded, NotReady):
                return self._committer.submit(StatusBatch((snapshot_of(payment),)))
        return None
