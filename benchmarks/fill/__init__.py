"""Fills a shard's store with millions of payments: `python -m benchmarks.fill`."""
