"""What this shard asks of other shards: one channel each, opened when it is first asked."""

from __future__ import annotations

from collections.abc import Set
from typing import Final

import structlog
from grpc import aio

from gateway.rpc.channel import open_channel
from tollgate.errors import OperationalError
from tollgate.v1.payment_pb2 import Payment
from tollgate.v1.shard_pb2 import GetPaymentRequest
from tollgate.v1.shard_pb2_grpc import ShardStub

_GRACE_S: Final = 10.0  # longer than a question may take: one that is cut off would be an answer missing

log = structlog.get_logger()


class OtherShardsClient:
    """Belongs to one event loop. `keep_only` what the ring names, so that channels don't gather."""

    def __init__(self) -> None:
        self._channels: dict[str, aio.Channel] = {}
        self._silent: set[str] = set()  # so that an outage is said once

    async def get_payment(
        self, address: str, merchant: str, checkout_id: str, timeout_s: float
    ) -> Payment | None:
        """What that shard has on disk and may tell. Raises OperationalError when it doesn't answer."""
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = open_channel(address)
        request = GetPaymentRequest(merchant=merchant, checkout_id=checkout_id)
        try:
            answer = await ShardStub(channel).GetPayment(request, timeout=timeout_s)
        except aio.AioRpcError as error:
            if address not in self._silent:
                self._silent.add(address)
                log.warning("another shard can't be asked", shard=address, reason=error.code().name)
            raise OperationalError(f"The shard at {address} did not answer ({error.code().name}).") from error
        self._silent.discard(address)
        return answer.payment if answer.HasField("payment") else None

    async def keep_only(self, addresses: Set[str]) -> None:
        """Closes the channels to shards that are not asked any more."""
        for address in self._channels.keys() - addresses:
            self._silent.discard(address)
            await self._channels.pop(address).close(grace=_GRACE_S)

    async def close(self) -> None:
        """At the end of the process: whoever still asks has been given up."""
        for channel in self._channels.values():
            await channel.close()
