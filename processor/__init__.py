"""Executes payments at the PSPs exactly once and keeps the system of record in Postgres."""
