"""The Shard service (shard.proto). Every answer is durable: writes are committed, reads see the disk."""

from __future__ import annotations

from typing import Any, Final

import grpc
from grpc import aio

from gateway.committer import Committer
from gateway.errors import StoreFailed
from gateway.metrics import Metrics
from gateway.planner import Acknowledged, Acknowledgement, Applied, StatusBatch
from gateway.replication import Replication
from gateway.snapshots import is_storable, snapshot_of
from gateway.store.interface import Store
from tollgate.errors import Overloaded, RejectedInput, TollgateError
from tollgate.ids import payment_key
from tollgate.shard_layout import CHANGES, decode_u64, encode_u64
from tollgate.v1 import shard_pb2
from tollgate.v1.payment_pb2 import Payment
from tollgate.v1.shard_pb2_grpc import ShardServicer

READ_CHANGES_MAX: Final = 10_000
# Below gRPC's own bound of 4 MiB a message, with room for one more change.
_READ_BYTES_MAX: Final = 3 * 1024 * 1024
_SCAN: Final = 500


class ShardService(ShardServicer):
    def __init__(
        self, committer: Committer, store: Store, metrics: Metrics, replication: Replication | None = None
    ) -> None:
        self._committer = committer
        self._store = store
        self._metrics = metrics
        self._replication = replication

    async def ApplyStatus(
        self, request: shard_pb2.ApplyStatusRequest, context: aio.ServicerContext[Any, Any]
    ) -> shard_pb2.ApplyStatusResponse:
        """INVALID_ARGUMENT, and nothing applied, when any snapshot is one that no payment can have."""
        payments = [update.payment for update in request.updates]
        unusable = [index for index, payment in enumerate(payments) if not is_storable(payment)]
        if unusable:
            self._metrics.status_updates.labels(result="refused").inc(len(payments))
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"No payment can have snapshot {unusable[0]}; {len(unusable)} of {len(payments)} "
                "are unusable. Nothing was applied: send the others without them.",
            )
        try:
            result = await self._committer.commit(StatusBatch(tuple(map(snapshot_of, payments))))
        except TollgateError as error:
            await _abort(context, error)
        applied = result.applied if isinstance(result, Applied) else 0
        ignored = len(payments) - applied
        self._metrics.status_updates.labels(result="applied").inc(applied)
        self._metrics.status_updates.labels(result="ignored").inc(ignored)
        return shard_pb2.ApplyStatusResponse(applied=applied, ignored=ignored)

    async def AcknowledgeChanges(
        self, request: shard_pb2.AcknowledgeChangesRequest, context: aio.ServicerContext[Any, Any]
    ) -> shard_pb2.AcknowledgeChangesResponse:
        """With ack=replicated the answer doesn't wait for the disk: `Replication.keep` stores it soon."""
        proof = Acknowledgement(request.incarnation, request.epoch, request.sequence)
        try:
            if self._replication is not None:
                self._replication.confirmed(proof)
                stored = self._committer.durable.acknowledged
                return shard_pb2.AcknowledgeChangesResponse(acknowledged=stored, awaited=True)
            result = await self._committer.commit(proof)
        except TollgateError as error:
            await _abort(context, error)
        sequence = result.sequence if isinstance(result, Acknowledged) else 0
        return shard_pb2.AcknowledgeChangesResponse(acknowledged=sequence)

    async def ReadChanges(
        self, request: shard_pb2.ReadChangesRequest, context: aio.ServicerContext[Any, Any]
    ) -> shard_pb2.ReadChangesResponse:
        if self._committer.failure is not None:
            await _abort(context, self._committer.failure)
        durable = self._committer.durable
        try:
            changes = self._contiguous(
                request.from_sequence, min(request.limit, READ_CHANGES_MAX), durable.last
            )
        except StoreFailed as error:
            await _abort(context, self._committer.fail(error))
        return shard_pb2.ReadChangesResponse(
            incarnation=self._committer.identity.incarnation,
            epoch=self._committer.identity.epoch,
            durable_sequence=durable.last,
            acknowledged_sequence=durable.acknowledged,
            pruned_sequence=durable.pruned,
            changes=changes,
        )

    async def GetPayment(
        self, request: shard_pb2.GetPaymentRequest, context: aio.ServicerContext[Any, Any]
    ) -> shard_pb2.GetPaymentResponse:
        try:
            stored = self._committer.read(payment_key(request.merchant, request.checkout_id))
            payment = None if stored is None else Payment.FromString(stored)
            if payment is not None and self._replication is not None:
                self._replication.check_proven(payment)
        except TollgateError as error:
            await _abort(context, error)
        return shard_pb2.GetPaymentResponse(payment=payment)

    def _contiguous(self, first: int, limit: int, last: int) -> list[bytes]:
        """Changes first, first + 1, … as far as they are contiguous, durable and fit into one answer."""
        changes: list[bytes] = []
        size = 0
        expected = first
        while len(changes) < limit and expected <= last:
            rows = self._store.scan(CHANGES, encode_u64(expected), min(_SCAN, limit - len(changes)))
            for key, change in rows:
                size += len(change)
                if decode_u64(key) != expected or expected > last or size > _READ_BYTES_MAX:
                    return changes
                changes.append(change)
                expected += 1
            if not rows:
                return changes
        return changes


async def _abort(context: aio.ServicerContext[Any, Any], error: TollgateError) -> None:
    code = grpc.StatusCode.UNAVAILABLE
    if isinstance(error, RejectedInput):
        code = grpc.StatusCode.FAILED_PRECONDITION
    elif isinstance(error, Overloaded):
        code = grpc.StatusCode.RESOURCE_EXHAUSTED
    await context.abort(code, error.message)
