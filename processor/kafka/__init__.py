"""The processor's Kafka clients: one consumer thread, one producer thread, nothing else."""
