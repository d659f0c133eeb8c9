"""A shard that holds millions of payments beside an empty one: `make bench-scale`."""
