"""Keeps memory that was freed, where the C library lets it be told so.

RocksDB frees a memtable of 32 MiB with each flush and needs the next one at once. Left alone, glibc gives the
pages back and gets them again one fault at a time, and the shard's memory goes up and down by a third.
"""

from __future__ import annotations

import ctypes
from typing import Final

# <malloc.h>
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_KEPT: Final = 256 * 1024 * 1024  # beyond what a shard ever has free
_MMAP_THRESHOLD_MAX: Final = 32 * 1024 * 1024  # glibc takes no more


def keep_freed_memory() -> None:
    """Call once, before threads are started. Does nothing where malloc is not glibc's."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return
    mallopt(_M_TRIM_THRESHOLD, _KEPT)
    mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_MAX)
