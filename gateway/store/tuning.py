"""RocksDB's settings for a shard: each number with what it was measured against.

Everything that is not set here is RocksDB's default, because nothing else had an effect that could be told
from noise, or had one for the worse: docs/decisions/0012 has the table. Sizes are bounds, so the memory of a
shard is bounded but for the index and the filters of its files: 5 bytes a payment, 52 MB for ten million.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rocksdict import BlockBasedOptions, Cache, DBRecoveryMode, Env, Options

from tollgate.shard_layout import PAYMENTS

_MIB: Final = 1024 * 1024
_INFO_LOGS_KEPT: Final = 5


@dataclass(frozen=True, slots=True)
class Tuning:
    """Bytes, but for `level0_files`."""

    # Random ids are served by the page cache whatever this is: 8.0, 8.6, 8.8 and 8.6 us a read at 8, 32, 64
    # and 128 MiB. What it is good for is the payments that were written last.
    block_cache: int = 32 * _MIB
    # Payments come in no order, so each flush is a file over all keys that compaction must merge. 300,000 of
    # them, taken in and settled on top of 5.4 million, wrote 2,130 MB at 16 MiB and 4 files (see below),
    # 1,635 MB at 32 MiB and 4, 1,380 MB at 32 MiB and 8. 64 MiB would save more and take 64 MiB of memory.
    payments_memtable: int = 32 * _MIB
    # Changes come in order and are moved, not merged: 4 or 16 MiB made no difference.
    other_memtable: int = 16 * _MIB
    # At 32 MiB writes were refused in stalls. It is read again after a crash, at about 350 MiB a second.
    wal: int = 96 * _MIB
    # How many flushed files wait for a merge. A look-up asks the filter of each, 0.1 us.
    level0_files: int = 8
    # RocksDB's own log is unbounded by default, and grew by 0.75 bytes a payment.
    info_log: int = 16 * _MIB
    # Bounded at 1 GiB by default, and all of it is read at opening.
    manifest: int = 16 * _MIB


def database_options(tuning: Tuning) -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    options.set_max_total_wal_size(tuning.wal)
    options.set_keep_log_file_num(_INFO_LOGS_KEPT)
    options.set_max_log_file_size(tuning.info_log)
    options.set_max_manifest_file_size(tuning.manifest)
    # The loop and the flushes go first. At 5,000/s with both cores busy and a merge under way, medians of six
    # pairs: half of the commits within 3 ms in place of 215, 99 % within 285 ms in place of 662. A merge that
    # falls behind is bounded by RocksDB's own refusals (StoreBusy).
    env = Env()
    env.lower_thread_pool_cpu_priority()
    options.set_env(env)
    # A torn tail was never acknowledged and is cut; a hole before good records is refused at opening.
    options.set_wal_recovery_mode(DBRecoveryMode.point_in_time())
    return options


def family_options(tuning: Tuning, family: str, cache: Cache) -> Options:
    table = BlockBasedOptions()
    table.set_block_cache(cache)
    # A new id is looked up before it is taken in: 0.5 us with this, 12 us without, and no less with 14 bits.
    table.set_bloom_filter(10, False)
    options = Options(raw_mode=True)
    options.set_block_based_table_factory(table)
    payments = family == PAYMENTS
    options.set_write_buffer_size(tuning.payments_memtable if payments else tuning.other_memtable)
    options.set_level_zero_file_num_compaction_trigger(tuning.level0_files)
    return options
