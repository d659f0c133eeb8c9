"""How this shard connects to others: lazily, and anew soon after a peer is back."""

from __future__ import annotations

from typing import Final

from grpc import aio

# gRPC's own wait between attempts grows to two minutes: a peer that was restarted would be away so long.
_OPTIONS: Final = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A hundred payments of 64 KiB and their operations: the largest page of a list.
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    # Several shards in one process, as in tests, each have connections of their own.
    ("grpc.use_local_subchannel_pool", 1),
]


def open_channel(address: str) -> aio.Channel:
    return aio.insecure_channel(address, options=_OPTIONS)
