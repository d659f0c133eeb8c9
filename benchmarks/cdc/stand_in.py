"""A shard's service that takes acknowledgements and keeps no cursor: a tailer begins at the same change every
time it is started, and when it has come how far is known here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from tollgate.v1 import shard_pb2
from tollgate.v1.shard_pb2_grpc import ShardServicer, add_ShardServicer_to_server


class StandIn(ShardServicer):
    """`told` are (monotonic seconds, sequence), as they came."""

    def __init__(self) -> None:
        self.told: list[tuple[float, int]] = []

    @property
    def last(self) -> int:
        return self.told[-1][1] if self.told else 0

    def AcknowledgeChanges(
        self, request: shard_pb2.AcknowledgeChangesRequest, context: Any
    ) -> shard_pb2.AcknowledgeChangesResponse:
        self.told.append((time.monotonic(), request.sequence))
        return shard_pb2.AcknowledgeChangesResponse(acknowledged=request.sequence)


@contextmanager
def serving(address: str) -> Iterator[StandIn]:
    stand_in = StandIn()  # type: ignore[abstract]  # the rest answers UNIMPLEMENTED
    server = grpc.server(ThreadPoolExecutor(1))
    add_ShardServicer_to_server(stand_in, server)
    server.add_insecure_port(address)
    server.start()
    try:
        yield stand_in
    finally:
        server.stop(None).wait(5)
