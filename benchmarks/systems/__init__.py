"""What is measured: each system as processes that are started, awaited and ended together."""
