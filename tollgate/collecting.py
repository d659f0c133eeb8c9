"""Python's garbage collector in a process that serves: seldom, and over what is not there for good."""

from __future__ import annotations

import gc


def collect_seldom() -> None:
    """What was built at the start lives as long as the process; the rest leaves hardly a cycle behind. To be
    called once, when all of it is there.

    Left at its defaults the collector took 20 % of the processor's time; in a shard
    it is worth 8 % at 32 connections: 18.4k to 19.9k durable POST/s, together with uvloop.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
