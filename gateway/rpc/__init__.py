"""gRPC: what the shard serves to its cdc process and to other shards, and what it asks of the Ledger."""
