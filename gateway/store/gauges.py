"""What RocksDB holds in memory and on disk, as gauges: read when they are scraped, microseconds each."""

from __future__ import annotations

import math
from functools import partial
from typing import Final, NamedTuple

from gateway.errors import StoreFailed
from gateway.metrics import Metrics
from gateway.store.rocks import RocksStore
from tollgate.shard_layout import COLUMN_FAMILIES, PAYMENTS


class _Gauge(NamedTuple):
    """`name` of the property: https://github.com/facebook/rocksdb/blob/v9.8.4/include/rocksdb/db.h"""

    metric: str
    description: str
    name: str
    families: tuple[str, ...] = COLUMN_FAMILIES


_GAUGES: Final = (
    # One cache for all families: each would say the same.
    _Gauge(
        "tollgate_store_block_cache_bytes",
        "Blocks of files in memory",
        "rocksdb.block-cache-usage",
        (PAYMENTS,),
    ),
    _Gauge(
        "tollgate_store_index_bytes",
        "Indexes and filters of files in memory; grows with the payments",
        "rocksdb.estimate-table-readers-mem",
    ),
    _Gauge("tollgate_store_memtable_bytes", "Not in files yet", "rocksdb.cur-size-all-mem-tables"),
    _Gauge("tollgate_store_file_bytes", "Files, without the WAL", "rocksdb.total-sst-files-size"),
    _Gauge("tollgate_store_payments", "Payments, roughly", "rocksdb.estimate-num-keys", (PAYMENTS,)),
    _Gauge(
        "tollgate_store_compaction_backlog_bytes",
        "What compaction is behind with; far behind, new payments get 503",
        "rocksdb.estimate-pending-compaction-bytes",
    ),
)


def watch_store(metrics: Metrics, store: RocksStore) -> None:
    for gauge in _GAUGES:
        metrics.watch(gauge.metric, gauge.description, partial(_read, store, gauge))


def _read(store: RocksStore, gauge: _Gauge) -> float:
    """NaN when the store can't say: the other metrics are read then more than ever."""
    try:
        return float(sum(store.property(family, gauge.name) for family in gauge.families))
    except StoreFailed:
        return math.nan
