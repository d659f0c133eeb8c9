"""Which partition a key belongs to, as Kafka's own clients say it: Java's murmur2, for whoever checks it.

The producer has this built in (`partitioner=murmur2_random`). The order of changes is kept per partition, so
a key in two of them would have lost its order: a check needs the answer without asking the producer.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final

_SEED: Final = 0x9747B28C
_M: Final = 0x5BD1E995
_32: Final = 0xFFFFFFFF


def partition_of(key: bytes, partitions: int) -> int:
    """`Utils.toPositive(Utils.murmur2(key)) % partitions` of Apache Kafka."""
    size = len(key)
    hashed = _SEED ^ size
    for word in _words(size // 4).unpack_from(key):
        mixed = word * _M & _32
        hashed = (hashed * _M & _32) ^ ((mixed ^ mixed >> 24) * _M & _32)
    if size % 4:
        hashed = (hashed ^ int.from_bytes(key[size - size % 4 :], "little")) * _M & _32
    hashed = (hashed ^ hashed >> 13) * _M & _32
    return ((hashed ^ hashed >> 15) & 0x7FFFFFFF) % partitions


@lru_cache(maxsize=128)
def _words(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}I")
