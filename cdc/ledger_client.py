"""What cdc asks of the Ledger; foreign errors are translated here. Any of the targets will do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from grpc import aio

from tollgate.errors import OperationalError
from tollgate.v1.ledger_pb2 import ListShardPaymentsRequest, ListShardPaymentsResponse
from tollgate.v1.ledger_pb2_grpc import LedgerStub

_TIMEOUT_S: Final = 10.0
_PAGE_BYTES_MAX: Final = 64 * 1024 * 1024


class LedgerApi(Protocol):
    async def shard_payments(self, shard: int, since_us: int, cursor: str) -> ListShardPaymentsResponse:
        """A page. Raises OperationalError when no Ledger answers."""
        ...


class LedgerClient:
    """A channel to each target, opened when it is first needed: the Ledger is asked once in a long while."""

    def __init__(self, targets: Sequence[str]) -> None:
        self._targets = targets
        self._channels: dict[str, aio.Channel] = {}

    async def shard_payments(self, shard: int, since_us: int, cursor: str) -> ListShardPaymentsResponse:
        request = ListShardPaymentsRequest(shard=shard, changed_since_us=since_us, cursor=cursor)
        reason = "none is configured"
        for target in self._targets:
            try:
                return await LedgerStub(self._channel(target)).ListShardPayments(request, timeout=_TIMEOUT_S)
            except aio.AioRpcError as error:
                reason = f"{target}: {error.code().name}, {error.details()}"
        raise OperationalError(f"No Ledger answered ({reason}).")

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()

    def _channel(self, target: str) -> aio.Channel:
        if target not in self._channels:
            options = [("grpc.max_receive_message_length", _PAGE_BYTES_MAX)]
            self._channels[target] = aio.insecure_channel(target, options=options)
        return self._channels[target]
