"""Every system that the gateway is measured beside, and the gateway itself. Describes; starts nothing."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.measure.generator import Target
from benchmarks.systems import builds
from benchmarks.systems.sample import ANSWER
from benchmarks.systems.system import System, nginx, nginx_part, on_core
from gateway.http.server import ServerName
from tollgate import nginx_config
from tollgate.ids import new_api_key
from tollgate.local.part import Part
from tollgate.local.ports import address, check_free
from tollgate.local.postgres import postgres_dsn, postgres_part
from tollgate.local.probes import http_probe
from tollgate.local.stack_json import MERCHANT
from tollgate.ring_file import RingFile, ShardEntry, write_ring_file

STATIC: Final = "static nginx"
FLOOR: Final = "floor: nginx to static nginx"
NOOP: Final = "no-op on the shard's server"
SHARD: Final = "shard alone"
SHARD_NGINX: Final = "shard through nginx"
PINNED: Final = "shard on one core, nginx on the other"
TWO_SHARDS: Final = "two shards through nginx"
PYTHON: Final = "Python peer through nginx"
GO: Final = "Go peer through nginx"

# The smallest nginx that answers: nothing of the project's configuration stands between it and its limit.
_STATIC_CONFIG: Final = """\
daemon off;
pid {folder}/static.pid;
worker_processes {workers};
{user}error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    default_type application/json;
    keepalive_requests 100000000;
    client_body_temp_path {folder}/static_body;
    proxy_temp_path {folder}/static_proxy;
    fastcgi_temp_path {folder}/static_fastcgi;
    uwsgi_temp_path {folder}/static_uwsgi;
    scgi_temp_path {folder}/static_scgi;
    server {{
        listen {listen} backlog=4096;
        location / {{
            add_header Retry-After 2 always;
            if ($request_method = POST) {{ return 202 '{answer}'; }}
            return 200 '{answer}';
        }}
    }}
}}
"""


@dataclass(frozen=True)
class Setup:
    """What all systems share. `workers` are each nginx's, `server` is the shard's and the no-op's."""

    folder: Path
    port_base: int
    workers: int
    server: ServerName
    api_key: str
    signing_key: str

    def port(self, name: str) -> str:
        return address(self.port_base + _PORTS[name])

    def target(self, name: str, *, holds_ids: bool = True) -> Target:
        return Target(self.port(name), self.api_key, holds_ids)


# What listens, and where after the first port.
_PORTS: Final = {
    "floor": 0,
    "static": 1,
    "noop": 10,
    "shard": 20,
    "shard's gRPC": 21,
    "shard-nginx": 22,
    "pinned": 23,
    "pinned's gRPC": 24,
    "pinned-nginx": 25,
    "first": 26,
    "first's gRPC": 27,
    "second": 28,
    "second's gRPC": 29,
    "two-nginx": 33,
    "python-peer": 30,
    "postgres": 31,
    "python-nginx": 32,
    "go-peer": 40,
    "go-nginx": 41,
}


def check_ports(setup: Setup) -> None:
    """Raises ConfigurationError when one is taken: what listens there would be measured in our place."""
    check_free({name: setup.port_base + offset for name, offset in _PORTS.items()})


def new_setup(folder: Path, port_base: int, workers: int, server: ServerName) -> Setup:
    return Setup(folder, port_base, workers, server, new_api_key(), new_api_key())


def systems(setup: Setup) -> dict[str, System]:
    """By name. The Go peer is not among them where there is no Go."""
    static, shard = _static(setup), _shard(setup, "shard", 0)
    found = [
        System(STATIC, setup.target("static", holds_ids=False), (static,)),
        System(FLOOR, setup.target("floor", holds_ids=False), (static,), (_nginx(setup, "floor", "static"),)),
        System(NOOP, setup.target("noop", holds_ids=False), (_noop(setup),)),
        System(SHARD, setup.target("shard"), (shard,)),
        System(SHARD_NGINX, setup.target("shard-nginx"), (shard,), (_nginx(setup, "shard-nginx", "shard"),)),
        System(
            PYTHON,
            setup.target("python-nginx"),
            _python_peer(setup),
            (_nginx(setup, "python-nginx", "python-peer"),),
        ),
    ]
    if len(os.sched_getaffinity(0)) > 1 and shutil.which("taskset"):
        found.append(_pinned(setup))
    found.append(_two_shards(setup))
    if (binary := builds.go_peer()) is not None:
        peer = go_peer_part(setup, binary, setup.port("go-peer"))
        found.append(System(GO, setup.target("go-nginx"), (peer,), (_nginx(setup, "go-nginx", "go-peer"),)))
    return {system.name: system for system in found}


def _nginx(setup: Setup, name: str, *behind: str) -> Part:
    shards = [setup.port(shard) for shard in behind]
    return nginx(name, setup.folder, setup.port(name), shards, setup.workers)


def _two_shards(setup: Setup) -> System:
    """As `tollgate up` has them."""
    shards = (_shard(setup, "first", 0), _shard(setup, "second", 1))
    front = _nginx(setup, "two-nginx", "first", "second")
    return System(TWO_SHARDS, setup.target("two-nginx"), shards, (front,))


def _pinned(setup: Setup) -> System:
    """What a machine of its own is given: neither takes the other's core, or its caches."""
    shard, front = _shard(setup, "pinned", 0), _nginx(setup, "pinned-nginx", "pinned")
    return System(PINNED, setup.target("pinned-nginx"), (on_core(0, shard),), (on_core(1, front),))


def _static(setup: Setup) -> Part:
    config = setup.folder / "static.conf"
    listen = setup.port("static")
    return nginx_part("static", setup.folder, config, listen, partial(_write_static, setup, config, listen))


def _write_static(setup: Setup, config: Path, listen: str) -> None:
    from tollgate.local.nginx import nobody

    run_as: nginx_config.RunAs | None = nobody()
    user = f"user {run_as.user} {run_as.group};\n" if run_as else ""
    config.write_text(
        _STATIC_CONFIG.format(
            folder=setup.folder, workers=setup.workers, user=user, listen=listen, answer=ANSWER.decode()
        )
    )


def _noop(setup: Setup) -> Part:
    listen = setup.port("noop")
    return Part(
        name="noop",
        argv=(sys.executable, "-m", "benchmarks.systems.noop", listen, setup.server),
        cwd=builds.ROOT,
        log=setup.folder / "noop.log",
        is_ready=http_probe(listen),
        stop_timeout_s=4.0,
    )


def _shard(setup: Setup, name: str, number: int) -> Part:
    listen, grpc = setup.port(name), setup.port(f"{name}'s gRPC")
    return shard_part(setup, name, setup.folder / name, listen, grpc, number=number)


def shard_part(
    setup: Setup,
    name: str,
    data_dir: Path,
    listen: str,
    grpc: str,
    settings: Mapping[str, str] | None = None,
    *,
    number: int = 0,
) -> Part:
    """Alone: no tailer, no Kafka, no processor."""
    ring = setup.folder / f"{name}-ring.json"
    entry = ShardEntry(id=number, name=listen, grpc=grpc)
    return Part(
        name=name,
        argv=(sys.executable, "-P", "-m", "gateway"),
        cwd=setup.folder,
        log=setup.folder / f"{name}.log",
        is_ready=http_probe(listen),
        env={
            "TOLLGATE_SHARD__ID": str(number),
            "TOLLGATE_SHARD__DATA_DIR": str(data_dir),
            "TOLLGATE_SHARD__HTTP": listen,
            "TOLLGATE_SHARD__GRPC": grpc,
            "TOLLGATE_SHARD__SERVER": setup.server,
            "TOLLGATE_RING_FILE": str(ring),
            "TOLLGATE_LEDGER__TARGETS": "",
            "TOLLGATE_CLIENT_SECRET_KEY": setup.signing_key,
            "TOLLGATE_DEVELOPMENT__API_KEY": setup.api_key,
            "TOLLGATE_DEVELOPMENT__MERCHANT": MERCHANT,
            **(settings or {}),
        },
        prepare=partial(write_ring_file, ring, RingFile(version=1, next_id=number + 1, shards=(entry,))),
    )


def go_peer_part(setup: Setup, binary: Path, listen: str) -> Part:
    return Part(
        name="go-peer",
        argv=(
            str(binary),
            *("-listen", listen, "-data", str(setup.folder / "go-peer"), "-merchant", MERCHANT),
            *("-api-key", setup.api_key, "-signing-key", setup.signing_key),
        ),
        cwd=setup.folder,
        log=setup.folder / "go-peer.log",
        is_ready=http_probe(listen),
    )


def _python_peer(setup: Setup) -> tuple[Part, ...]:
    host, _, port = setup.port("python-peer").rpartition(":")
    postgres_port = setup.port_base + _PORTS["postgres"]
    peer = Part(
        name="python-peer",
        argv=(
            str(builds.python_peer()),
            *("-m", "uvicorn", "benchmarks.peers.python.app:app", "--host", host, "--port", port),
            *("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"),
        ),
        cwd=builds.ROOT,
        log=setup.folder / "python-peer.log",
        is_ready=http_probe(setup.port("python-peer")),
        env={
            "PEER_POSTGRES_DSN": postgres_dsn(postgres_port),
            "PEER_API_KEY": setup.api_key,
            "PEER_MERCHANT": MERCHANT,
            "PEER_SIGNING_KEY": setup.signing_key,
        },
    )
    data, log = setup.folder / "postgres", setup.folder / "postgres.log"
    return postgres_part(data, log, postgres_port), peer
