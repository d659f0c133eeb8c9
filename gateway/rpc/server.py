"""The gRPC server, on the same loop as everything else."""

from __future__ import annotations

from grpc import aio

from gateway.rpc.shard_service import ShardService
from tollgate.errors import ConfigurationError
from tollgate.v1.shard_pb2_grpc import add_ShardServicer_to_server

_MESSAGE_BYTES_MAX = 16 * 1024 * 1024
# The cdc's two tasks, a few people, and the look-ups of other shards, each bounded there; beyond that
# RESOURCE_EXHAUSTED. Only the cdc sends large messages, two at a time.
_CALLS_MAX = 512


async def start_rpc(service: ShardService, listen: str) -> aio.Server:
    """Raises ConfigurationError when the address is taken."""
    options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX)]
    server = aio.server(options=options, maximum_concurrent_rpcs=_CALLS_MAX)
    add_ShardServicer_to_server(service, server)
    try:
        server.add_insecure_port(listen)
    except RuntimeError as error:
        raise ConfigurationError(
            f"{listen} can't be listened on. Operator action: end what listens there, "
            "or set TOLLGATE_SHARD__GRPC."
        ) from error
    await server.start()
    return server
