"""`python -m tollgate.local`: the supervisor's process. `tollgate up` starts it and hands its lock over."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import structlog

from tollgate.clock import SystemClock
from tollgate.errors import TollgateError
from tollgate.local.control import Control
from tollgate.local.paths import StackPaths
from tollgate.local.ports import PortPlan
from tollgate.local.ring_changer import RingChanger
from tollgate.local.shard_life import ShardLife
from tollgate.local.stack import STOP_ORDER, StackSettings, build_parts, describe
from tollgate.local.stack_json import api_key_of, write_stack_json
from tollgate.local.supervisor import Supervisor, raise_open_files
from tollgate.nginx_settings import address_limits
from tollgate.ring_file import RingFile, read_ring_file, write_ring_file
from tollgate.telemetry import configure_logging

_PR_SET_PDEATHSIG = 1


def main() -> int:
    arguments = _arguments()
    configure_logging("supervisor")
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.truncate(arguments.lock_fd, 0)
    os.pwrite(arguments.lock_fd, str(os.getpid()).encode(), 0)
    os.set_inheritable(arguments.lock_fd, False)  # the lock ends with this process, not with its parts
    if arguments.starter is not None and not _end_with(arguments.starter):
        return 1
    raise_open_files()
    settings = StackSettings(
        paths=StackPaths(arguments.data_dir),
        ports=PortPlan(base=arguments.port_base, http=arguments.port),
        processors=arguments.processors,
        kafka_bootstrap=os.environ.get("TOLLGATE_KAFKA_BOOTSTRAP") or None,
        postgres_dsn=os.environ.get("TOLLGATE_POSTGRES_DSN") or None,
        limits=address_limits(),
    )
    try:
        asyncio.run(_run(settings))
    except (TollgateError, OSError) as error:
        structlog.get_logger().error("not started", error=str(error))
        return 1
    return 0


async def _run(settings: StackSettings) -> None:
    paths = settings.paths
    ring = read_ring_file(paths.ring)
    api_key = api_key_of(paths.stack_json)

    def publish(pids: Mapping[str, int]) -> None:
        write_stack_json(paths.stack_json, describe(settings, changer.ring, api_key, pids))

    def write_ring(ring: RingFile) -> None:
        write_ring_file(paths.ring, ring)

    def make_topics() -> None:
        from tollgate.local.topics import ensure_topics, has_one_broker  # loads the Kafka client: slow

        one_node = settings.kafka_bootstrap is None or has_one_broker(settings.bootstrap)
        ensure_topics(settings.bootstrap, embedded=one_node)

    parts = build_parts(settings, ring, api_key)
    supervisor = Supervisor(parts, STOP_ORDER, paths.run_state, publish, make_topics)
    changer = RingChanger(ring, write_ring, ShardLife(settings, supervisor, api_key), SystemClock())
    control = Control(paths.control, changer, supervisor.publish)
    await supervisor.run(changer.keep(), control.serve())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tollgate.local")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--port-base", type=int, required=True)
    parser.add_argument("--processors", type=int, required=True)
    parser.add_argument("--lock-fd", type=int, required=True)
    parser.add_argument("--starter", type=int, help="stop when this process, which started this one, ends")
    return parser.parse_args()


def _end_with(starter: int) -> bool:
    """Asks the kernel for SIGTERM when the starter dies. False when it is gone already."""
    with suppress(OSError, AttributeError):  # Linux only; elsewhere Ctrl-C still stops the stack
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    return os.getppid() == starter


if __name__ == "__main__":
    sys.exit(main())
