"""The shard's store: one small interface, RocksDB in production and memory in simulations."""
