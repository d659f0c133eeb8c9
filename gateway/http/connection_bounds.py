"""How many connections a shard serves, and how much of what they sent it holds unread.

Files and memory are what connections use up, and the store needs files too: a shard that runs out of them
while RocksDB opens one has failed. So the last connections are kept for /livez, /readyz and /metrics, with a
short life, and beyond those a newcomer is turned away at once.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import Final

from tollgate.errors import ConfigurationError

# RocksDB's files, gRPC's, logs, and whoever is just being turned away.
FILES_FOR_THE_REST: Final = 1024
CONNECTIONS_MIN: Final = 64
_KIB: Final = 1024


@dataclass(frozen=True, slots=True)
class ConnectionBounds:
    """`ops_reserve` come on top of `connections_max`; `held_bytes_max` are over all connections."""

    connections_max: int = 8192
    ops_reserve: int = 64
    held_bytes_max: int = 64 * _KIB * _KIB


def connections_possible(wanted: int, ops_reserve: int, files_max: int) -> int:
    """As many as wanted, or as `files_max` open files allow.

    Raises ConfigurationError when that is too few to be of use.
    """
    possible = min(wanted, files_max - FILES_FOR_THE_REST - ops_reserve)
    if possible < min(wanted, CONNECTIONS_MIN):
        raise ConfigurationError(
            f"This process may open {files_max} files, which leaves none for connections. Operator action: "
            f"raise its limit (ulimit -n) to {wanted + ops_reserve + FILES_FOR_THE_REST}."
        )
    return possible


def raise_files_max() -> int:
    """Lets this process open as many files as it may; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 2**31
