"""The tailer beside a bare producer, and what it costs the shard: `make bench-cdc`."""
