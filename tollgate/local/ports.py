"""Where everything listens: one base, fixed offsets, so that a second stack needs one number to be changed.

Shards' HTTP ports follow their ids, because nginx hashes over them. gRPC and ops ports come from a pool:
pairs from its start for shards (which the ring file then remembers) and their cdc, pairs from its end for
processors. All of them lie below 32768, where the kernel hands out ports for outgoing connections.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import psutil

from tollgate.errors import ConfigurationError

HOST: Final = "127.0.0.1"
BASE: Final = 7070
HTTP: Final = 8080
_SHARDS_AT: Final = 30
_POOL: Final[tuple[int, ...]] = (*range(4, 30), *range(94, 130))
SPAN: Final = 130
_BELOW: Final = 32768


@dataclass(frozen=True)
class PortPlan:
    """`http` is nginx's own port; everything else lies on base … base + 129."""

    base: int = BASE
    http: int = HTTP

    def __post_init__(self) -> None:
        if not 1024 <= self.base <= _BELOW - SPAN:
            raise ConfigurationError(
                f"The port base {self.base} can't be used: choose one from 1024 to {_BELOW - SPAN}."
            )
        if not 1 <= self.http <= 65535 or self.base <= self.http < self.base + SPAN:
            raise ConfigurationError(
                f"nginx's port {self.http} can't be used: choose one from 1 to 65535 "
                f"outside {self.base}–{self.base + SPAN - 1}, where the other parts listen."
            )

    @property
    def kafka(self) -> int:
        return self.base

    @property
    def kafka_controller(self) -> int:
        return self.base + 1

    @property
    def postgres(self) -> int:
        return self.base + 2

    @property
    def simulator(self) -> int:
        return self.base + 3

    def shard_http(self, shard: int) -> int:
        return self.base + _SHARDS_AT + shard

    def shard_grpc(self, slot: int) -> int:
        """`slot` counts pairs of ports from 0; the second one of a pair is `cdc_ops`."""
        return self._pooled(2 * slot)

    def cdc_ops(self, shard_grpc: int) -> int:
        return shard_grpc + 1

    def processor_grpc(self, processor: int) -> int:
        return self._pooled(len(_POOL) - 1 - 2 * processor)

    def processor_ops(self, processor: int) -> int:
        return self._pooled(len(_POOL) - 2 - 2 * processor)

    def _pooled(self, slot: int) -> int:
        return self.base + _POOL[slot]


def check_counts(shards: int, processors: int) -> None:
    """Raises ConfigurationError when shards and processors together need more ports than the pool has."""
    most = len(_POOL) // 2
    if shards + processors > most:
        raise ConfigurationError(
            f"{shards} shards and {processors} processors need more ports than the plan has: "
            f"together at most {most}. Start fewer processors."
        )


def base_of_shard(name: str, shard: int) -> int:
    """The base that a shard's name (host:port, as nginx hashes it) was made with."""
    return int(name.rpartition(":")[2]) - _SHARDS_AT - shard


def address(port: int) -> str:
    return f"{HOST}:{port}"


def check_free(ports: Mapping[str, int]) -> None:
    """Raises ConfigurationError naming the first port that is taken and, where it can be told, by whom."""
    for part, port in ports.items():
        if reason := _why_taken(port):
            raise ConfigurationError(
                f"Port {port}, which {part} needs, {reason}. "
                "Choose other ports with --port and --port-base, or end what listens there."
            )


def _why_taken(port: int) -> str | None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT don't count
        try:
            probe.bind((HOST, port))
        except PermissionError:
            return "may not be listened on by this user"
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return f"can't be listened on ({error.strerror})"
            return f"is in use by {_holder(port)}"
    return None


def _holder(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr
            if listens and listens.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        pass  # another user's process: only that it is taken can be said
    return "another program"
