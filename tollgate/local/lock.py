"""One supervisor a data folder: the one that holds the lock. The kernel frees it whatever becomes of its
holder.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def acquire(path: Path) -> int | None:
    """An open descriptor that holds the lock, or None when another process does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_held(path: Path) -> bool:
    """Whether a supervisor runs. Creates nothing."""
    if not path.exists():
        return False
    descriptor = acquire(path)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def holder(path: Path) -> int | None:
    """The supervisor's pid, when the lock is held and its holder has written it."""
    if not is_held(path):
        return None
    written = path.read_text().strip()
    return int(written) if written.isdigit() else None
