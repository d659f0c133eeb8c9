"""The load generator's histograms, read back: buckets as benchmarks/loadgen/histogram.h numbers them. Pure.

128 buckets to each power of two. A percentile is the upper edge of the bucket in which it lies, so it is
never below the true value and at most 0.8 % above it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

BITS: Final = 7
_SUB: Final = 1 << BITS


def upper_edge(bucket: int) -> int:
    """The largest number of nanoseconds that `bucket` counts."""
    if bucket < _SUB:
        return bucket
    shift, offset = divmod(bucket, _SUB)
    return ((offset + _SUB + 1) << (shift - 1)) - 1


@dataclass(frozen=True)
class Histogram:
    """`buckets` are (number, count), ascending by number."""

    buckets: tuple[tuple[int, int], ...] = ()
    max_ns: int = 0

    @property
    def count(self) -> int:
        return sum(count for _, count in self.buckets)

    def percentile_ns(self, percent: float) -> int | None:
        """The smallest value that `percent` of all values do not exceed (nearest rank); None when empty."""
        if not self.buckets:
            return None
        # Rounded first: 99.9 % of 1000 must be the 999th, whatever the float product is.
        rank = max(1, math.ceil(round(self.count * percent / 100, 6)))
        seen = 0
        for bucket, count in self.buckets:
            seen += count
            if seen >= rank:
                return min(upper_edge(bucket), self.max_ns)
        return self.max_ns


def read(document: dict[str, Any]) -> Histogram:
    """As the generator prints it. Raises ValueError when it contradicts itself."""
    buckets = tuple((int(bucket), int(count)) for bucket, count in document["buckets"])
    histogram = Histogram(buckets, int(document["max_ns"]))
    if histogram.count != document["count"] or list(buckets) != sorted(buckets):
        raise ValueError("a histogram's buckets do not add up to its count")
    return histogram


def merge(histograms: Iterable[Histogram]) -> Histogram:
    """As if all values had been counted in one."""
    counts: dict[int, int] = {}
    max_ns = 0
    for histogram in histograms:
        max_ns = max(max_ns, histogram.max_ns)
        for bucket, count in histogram.buckets:
            counts[bucket] = counts.get(bucket, 0) + count
    return Histogram(tuple(sorted(counts.items())), max_ns)
