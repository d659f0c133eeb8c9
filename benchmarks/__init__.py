"""Measurements: each a command that prints a table and writes its raw numbers to `results/`."""
