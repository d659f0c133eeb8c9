"""The local stack: real Kafka, Postgres, nginx and every part of Tollgate from packages, under one supervisor."""
