"""One shard: admits payments, commits them durably to its RocksDB and answers for their status."""
