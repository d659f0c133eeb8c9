"""What this shard asks of the Ledger. Any of the targets will do; none may be there."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from grpc import aio

from tollgate.errors import OperationalError
from tollgate.v1.ledger_pb2 import ListMerchantsRequest, ListMerchantsResponse
from tollgate.v1.ledger_pb2_grpc import LedgerStub

_TIMEOUT_S = 2.0


class LedgerClient:
    """Keeps to the target that answered last."""

    def __init__(self, targets: Sequence[str]) -> None:
        self._channels = [aio.insecure_channel(target) for target in targets]

    async def list_merchants(self) -> ListMerchantsResponse:
        """Raises OperationalError when no target answers."""
        reason = "none is configured"
        for channel in list(self._channels):
            try:
                return await LedgerStub(channel).ListMerchants(ListMerchantsRequest(), timeout=_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                reason = str(error.code())
                self._channels.append(self._channels.pop(0))
        raise OperationalError(f"No Ledger answered ({reason}). The copy of the merchants stays as it is.")

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()
