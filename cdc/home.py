"""Where a shard's changes are at home: a few partitions of payments.changes, the same ones for life.

What a look of the tailer costs Kafka, it costs for each partition that it brings something for: a request,
and on one node three syncs. So a shard keeps to three, and the next shard to the next three; their intake is
shared by as many processors, and what it stores by all of them.

A key has one home with a shard, so its changes stay in order. After the ring has moved it, another shard's
changes of it may lie in other partitions: nothing relies on an order between the two.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

PARTITIONS_A_SHARD: Final = 3


class Home:
    """Of one shard, in a topic of so many partitions; 0, not known yet, gives none."""

    def __init__(self, shard: int, partitions: int) -> None:
        count = min(PARTITIONS_A_SHARD, partitions)
        first = shard * PARTITIONS_A_SHARD
        self.partitions: Final = tuple((first + number) % partitions for number in range(count))

    def of(self, key: bytes) -> int:
        """The partition."""
        return self.partitions[crc32(key) % len(self.partitions)]
