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


def files_wanted(connections: int, ops_reserve: int) -> int:
    return connections + ops_reserve + FILES_FOR_THE_REST


def connections_possible(wanted: int, ops_reserve: int, files_max: int) -> int:
    """As many as wanted, or as `files_max` open files allow.

    Raises ConfigurationError when that is too few to be of use.
    """
    possible = min(wanted, files_max - files_wanted(0, ops_reserve))
    if possible < min(wanted, CONNECTIONS_MIN):
        raise ConfigurationError(
            f"This process may open {files_max} files, which leaves none for connections. Operator action: "
            f"raise its limit (ulimit -n) to {files_wanted(wanted, ops_reserve)}."
        )
    return possible


def files_possible(wanted: int) -> int:
    """How many files this process may open, after its limit was raised to `wanted` as far as it goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    possible = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < possible:
        resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
        soft = possible
    return wanted if soft == resource.RLIM_INFINITY else soft
