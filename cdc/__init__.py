"""Beside each shard: ships its change log to Kafka and feeds statuses back to it."""
