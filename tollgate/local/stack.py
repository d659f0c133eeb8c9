"""What one local stack consists of: its parts, the environment each is given, and its entries in stack.json.

Deciding only: nothing is started, opened or written here.
"""

from __future__ import annotations

import base64
import hmac
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Final

from tollgate.local.kafka import kafka_part
from tollgate.local.nginx import NGINX, nginx_part
from tollgate.local.part import Part
from tollgate.local.paths import StackPaths
from tollgate.local.ports import PortPlan, address, check_counts
from tollgate.local.postgres import postgres_dsn, postgres_part
from tollgate.local.probes import Probe, http_probe
from tollgate.local.stack_json import (
    MERCHANT,
    CdcProcess,
    ProcessorProcess,
    ServiceProcess,
    ShardProcess,
    StackJson,
)
from tollgate.nginx_config import NO_LIMITS, AddressLimits
from tollgate.ring_file import RingFile, ShardEntry

KAFKA: Final = "kafka"
POSTGRES: Final = "postgres"
SIMULATOR: Final = "simulator"

# The order of stopping: no new work first, then what takes work in, then what carries it on. Whole stages
# stop together; their longest times add up to less than 20 s.
STOP_ORDER: Final = ((NGINX,), ("shard-",), ("cdc-", "processor-", SIMULATOR), (KAFKA, POSTGRES))
_STOP_TIMEOUT_S: Final = {NGINX: 2.0, "shard-": 8.0, "cdc-": 4.0, "processor-": 4.0, SIMULATOR: 4.0}
_STORE_STOP_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True)
class StackSettings:
    """What was asked for. `kafka_bootstrap` and `postgres_dsn` name services that run elsewhere."""

    paths: StackPaths
    ports: PortPlan
    processors: int
    kafka_bootstrap: str | None = None
    postgres_dsn: str | None = None
    limits: AddressLimits = NO_LIMITS

    @property
    def bootstrap(self) -> str:
        return self.kafka_bootstrap or address(self.ports.kafka)

    @property
    def dsn(self) -> str:
        return self.postgres_dsn or postgres_dsn(self.ports.postgres)

    @property
    def base_url(self) -> str:
        return f"http://{address(self.ports.http)}"

    @property
    def simulator_url(self) -> str:
        return f"http://{address(self.ports.simulator)}"


def new_ring(ports: PortPlan, shards: int) -> RingFile:
    """The first ring of a data folder: ids 0 … shards-1."""
    entries = (
        ShardEntry(id=i, name=address(ports.shard_http(i)), grpc=address(ports.shard_grpc(i)))
        for i in range(shards)
    )
    return RingFile(version=1, next_id=shards, shards=tuple(entries))


def needed_ports(settings: StackSettings, ring: RingFile) -> dict[str, int]:
    """Every port that this stack will listen on, by the part that needs it."""
    ports = settings.ports
    needed = {NGINX: ports.http, SIMULATOR: ports.simulator}
    if settings.kafka_bootstrap is None:
        needed |= {KAFKA: ports.kafka, "kafka's controller": ports.kafka_controller}
    if settings.postgres_dsn is None:
        needed[POSTGRES] = ports.postgres
    for shard in ring.running:
        needed |= shard_ports(ports, shard)
    for index in range(settings.processors):
        needed[f"processor-{index} (gRPC)"] = ports.processor_grpc(index)
        needed[f"processor-{index}"] = ports.processor_ops(index)
    return needed


def shard_ports(ports: PortPlan, shard: ShardEntry) -> dict[str, int]:
    """What a shard and its cdc listen on, by the part that needs it."""
    return {
        f"shard-{shard.id}": _port(shard.name),
        f"shard-{shard.id} (gRPC)": _port(shard.grpc),
        f"cdc-{shard.id}": ports.cdc_ops(_port(shard.grpc)),
    }


def next_address(settings: StackSettings, ring: RingFile) -> tuple[str, str]:
    """Name and gRPC address of the next shard. Raises ConfigurationError when the plan has no port left."""
    ports = settings.ports
    check_counts(len(ring.running) + 1, settings.processors)
    taken = {shard.grpc for shard in ring.running}
    free = (grpc for slot in count() if (grpc := address(ports.shard_grpc(slot))) not in taken)
    return address(ports.shard_http(ring.next_id)), next(free)


def build_parts(settings: StackSettings, ring: RingFile, api_key: str) -> list[Part]:
    """Every process of the stack, the slowest to start first."""
    paths, ports = settings.paths, settings.ports
    parts = []
    if settings.kafka_bootstrap is None:
        parts.append(
            kafka_part(
                paths.kafka, paths.log(KAFKA), port=ports.kafka, controller_port=ports.kafka_controller
            )
        )
    if settings.postgres_dsn is None:
        parts.append(postgres_part(paths.postgres, paths.log(POSTGRES), ports.postgres))
    parts += [_processor(settings, index, api_key) for index in range(settings.processors)]
    for shard in ring.running:
        parts += shard_parts(settings, shard, api_key)
    parts += [_simulator(settings, api_key), _nginx(settings)]
    return [replace(part, stop_timeout_s=stop_timeout_s(part)) for part in parts]


def shard_parts(settings: StackSettings, shard: ShardEntry, api_key: str) -> list[Part]:
    """One shard and its cdc."""
    parts = (_shard(settings, shard, api_key), _cdc(settings, shard))
    return [replace(part, stop_timeout_s=stop_timeout_s(part)) for part in parts]


def _nginx(settings: StackSettings) -> Part:
    return nginx_part(settings.paths, address(settings.ports.http), settings.limits)


def stop_timeout_s(part: Part) -> float:
    """How long `part` may take to stop by itself: its own bound, or less: all stages fit into 20 s."""
    for prefix, bound in _STOP_TIMEOUT_S.items():
        if part.name.startswith(prefix):
            return min(bound, part.stop_timeout_s)
    return min(_STORE_STOP_TIMEOUT_S, part.stop_timeout_s)


def describe(settings: StackSettings, ring: RingFile, api_key: str, pids: Mapping[str, int]) -> StackJson:
    """stack.json for `pids` (part → pid); without pids, what is left of it when nothing runs.

    A shard is in it from when it is on the ring until it has stopped.
    """
    shards = [shard for shard in ring.running if shard != ring.joining]
    services = {KAFKA: KAFKA, POSTGRES: POSTGRES, NGINX: NGINX, "psp_simulator": SIMULATOR}
    return StackJson(
        base_url=settings.base_url,
        api_key=api_key,
        merchant=MERCHANT,
        kafka_bootstrap=settings.bootstrap,
        postgres_dsn=settings.dsn,
        psp_simulator_url=settings.simulator_url,
        shards=tuple(
            ShardProcess(
                id=shard.id,
                pid=pids[f"shard-{shard.id}"],
                http=f"http://{shard.name}",
                grpc=shard.grpc,
                data_dir=str(settings.paths.shard(shard.id)),
            )
            for shard in shards
            if f"shard-{shard.id}" in pids
        ),
        cdc=tuple(
            CdcProcess(shard=shard.id, pid=pids[f"cdc-{shard.id}"])
            for shard in shards
            if f"cdc-{shard.id}" in pids
        ),
        processors=tuple(
            ProcessorProcess(pid=pids[f"processor-{i}"], grpc=address(settings.ports.processor_grpc(i)))
            for i in range(settings.processors)
            if f"processor-{i}" in pids
        ),
        services={name: ServiceProcess(pid=pids[part]) for name, part in services.items() if part in pids},
    )


def _shard(settings: StackSettings, shard: ShardEntry, api_key: str) -> Part:
    return _python(
        settings,
        f"shard-{shard.id}",
        "gateway",
        http_probe(shard.name),
        _shard_identity(settings, shard)
        | _development(api_key)
        | {
            "TOLLGATE_SHARD__HTTP": shard.name,
            "TOLLGATE_LEDGER__TARGETS": _ledger_targets(settings),
            "TOLLGATE_CLIENT_SECRET_KEY": _derived(api_key, "client secrets").hex(),
            "TOLLGATE_PSP__SIMULATOR__WEBHOOK_SECRET": webhook_secret(api_key),
            "TOLLGATE_PSP__DEFAULT": os.environ.get("TOLLGATE_PSP__DEFAULT", "simulator"),
            # `up` begins with 200 MB: it must not then refuse every payment.
            "TOLLGATE_SHARD__DISK_FREE_MIN": os.environ.get("TOLLGATE_SHARD__DISK_FREE_MIN", "128MiB"),
            "TOLLGATE_PSP__NAMES": os.environ.get("TOLLGATE_PSP__NAMES", '["simulator"]'),
        },
    )


def _cdc(settings: StackSettings, shard: ShardEntry) -> Part:
    ops = address(settings.ports.cdc_ops(_port(shard.grpc)))
    return _python(
        settings,
        f"cdc-{shard.id}",
        "cdc",
        http_probe(ops),
        _shard_identity(settings, shard)
        | {
            "TOLLGATE_KAFKA_BOOTSTRAP": settings.bootstrap,
            "TOLLGATE_LEDGER__TARGETS": _ledger_targets(settings),
            "TOLLGATE_CDC__OPS": ops,
        },
    )


def _ledger_targets(settings: StackSettings) -> str:
    return ",".join(address(settings.ports.processor_grpc(i)) for i in range(settings.processors))


def _processor(settings: StackSettings, index: int, api_key: str) -> Part:
    ops = address(settings.ports.processor_ops(index))
    return _python(
        settings,
        f"processor-{index}",
        "processor",
        http_probe(ops),
        _development(api_key)
        | {
            "TOLLGATE_POSTGRES_DSN": settings.dsn,
            "TOLLGATE_KAFKA_BOOTSTRAP": settings.bootstrap,
            "TOLLGATE_PROCESSOR__GRPC": address(settings.ports.processor_grpc(index)),
            "TOLLGATE_PROCESSOR__OPS": ops,
            "TOLLGATE_PROCESSOR__INSTANCE": f"processor-{index}",
            "TOLLGATE_PSP__SIMULATOR__URL": settings.simulator_url,
        },
    )


def _simulator(settings: StackSettings, api_key: str) -> Part:
    listen = address(settings.ports.simulator)
    return _python(
        settings,
        SIMULATOR,
        "tollgate.local.simulator",
        http_probe(listen),
        {
            "TOLLGATE_SIMULATOR__LISTEN": listen,
            "TOLLGATE_SIMULATOR__DATA_DIR": str(settings.paths.simulator),
            "TOLLGATE_SIMULATOR__PUBLIC_URL": settings.simulator_url,
            "TOLLGATE_SIMULATOR__WEBHOOK_URL": f"{settings.base_url}/v1/webhooks/simulator",
            "TOLLGATE_SIMULATOR__WEBHOOK_SECRET": webhook_secret(api_key),
        },
    )


def _python(
    settings: StackSettings,
    name: str,
    module: str,
    is_ready: Probe,
    env: Mapping[str, str],
) -> Part:
    return Part(
        name=name,
        argv=(sys.executable, "-P", "-m", module),
        cwd=settings.paths.data_dir,
        log=settings.paths.log(name),
        is_ready=is_ready,
        env={"TOLLGATE_RING_FILE": str(settings.paths.ring), **env},
    )


def _shard_identity(settings: StackSettings, shard: ShardEntry) -> dict[str, str]:
    return {
        "TOLLGATE_SHARD__ID": str(shard.id),
        "TOLLGATE_SHARD__DATA_DIR": str(settings.paths.shard(shard.id)),
        "TOLLGATE_SHARD__GRPC": shard.grpc,
    }


def _development(api_key: str) -> dict[str, str]:
    return {"TOLLGATE_DEVELOPMENT__API_KEY": api_key, "TOLLGATE_DEVELOPMENT__MERCHANT": MERCHANT}


def webhook_secret(api_key: str) -> str:
    return "whsec_" + base64.b64encode(_derived(api_key, "simulator's webhooks")).decode()


def _derived(api_key: str, purpose: str) -> bytes:
    """32 bytes that need no storage of their own: the same as long as the development key is."""
    return hmac.digest(api_key.encode(), purpose.encode(), "sha256")


def _port(host_port: str) -> int:
    return int(host_port.rpartition(":")[2])
