"""The local stack: real Kafka, Postgres, nginx and every part of Tollgate under one supervisor."""
