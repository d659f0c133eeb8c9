"""The shard's gRPC service as cdc uses it; foreign errors are translated here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

import grpc
from grpc import aio

from cdc.tailer import Identity
from tollgate.errors import OperationalError, RejectedInput
from tollgate.v1.shard_pb2 import (
    AcknowledgeChangesRequest,
    ApplyStatusRequest,
    ApplyStatusResponse,
    ReadChangesRequest,
    ReadChangesResponse,
    StatusUpdate,
)
from tollgate.v1.shard_pb2_grpc import ShardStub

if TYPE_CHECKING:
    from tollgate.v1.shard_pb2_grpc import ShardAsyncStub

_CALL_TIMEOUT_S: Final = 5.0
_MESSAGE_BYTES_MAX: Final = 64 * 1024 * 1024

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", _MESSAGE_BYTES_MAX),
    # A shard that came back is found again within a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


class ShardApi(Protocol):
    """Raises OperationalError when the call may be repeated, RejectedInput when its content is refused."""

    async def acknowledge(self, identity: Identity, sequence: int) -> bool:
        """Whether requests wait for the next one."""
        ...

    async def read_changes(self, from_sequence: int, limit: int) -> ReadChangesResponse: ...

    async def apply_status(self, updates: Sequence[StatusUpdate]) -> ApplyStatusResponse: ...


class ShardClient:
    """One channel to one shard, plaintext: both are on one machine, on loopback."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._channel = aio.insecure_channel(target, options=list(_OPTIONS))
        self._stub: ShardAsyncStub = ShardStub(self._channel)

    async def acknowledge(self, identity: Identity, sequence: int) -> bool:
        request = AcknowledgeChangesRequest(
            incarnation=identity.incarnation, epoch=identity.epoch, sequence=sequence
        )
        with self._translated("AcknowledgeChanges"):
            return (await self._stub.AcknowledgeChanges(request, timeout=_CALL_TIMEOUT_S)).awaited

    async def read_changes(self, from_sequence: int, limit: int) -> ReadChangesResponse:
        with self._translated("ReadChanges"):
            return await self._stub.ReadChanges(
                ReadChangesRequest(from_sequence=from_sequence, limit=limit), timeout=_CALL_TIMEOUT_S
            )

    async def apply_status(self, updates: Sequence[StatusUpdate]) -> ApplyStatusResponse:
        with self._translated("ApplyStatus"):
            return await self._stub.ApplyStatus(ApplyStatusRequest(updates=updates), timeout=_CALL_TIMEOUT_S)

    async def close(self) -> None:
        await self._channel.close()

    @contextmanager
    def _translated(self, call: str) -> Iterator[None]:
        try:
            yield
        except aio.AioRpcError as error:
            said = f"{call} at the shard on {self._target}: {error.code().name}, {error.details()}."
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                raise RejectedInput(said) from error
            raise OperationalError(said) from error
