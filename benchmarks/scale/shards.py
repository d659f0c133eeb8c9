"""The shards that are compared, as processes: started, killed, timed until they serve, and looked into."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from benchmarks.measure.generator import Target
from benchmarks.systems.catalogue import Setup, shard_part
from tollgate.errors import OperationalError
from tollgate.local import process
from tollgate.local.part import Part
from tollgate.local.ports import address
from tollgate.shard_layout import DATABASE_DIR

READY_TIMEOUT_S: Final = 60.0
_MIB: Final = 1024 * 1024


@dataclass
class Shard:
    """One `python -m gateway` over `data_dir`; nobody else may use that folder meanwhile."""

    name: str
    data_dir: Path
    part: Part
    target: Target
    grpc: str
    running: subprocess.Popen[bytes] | None = None

    async def start(self) -> float:
        """Milliseconds until /readyz says 200. Raises OperationalError when it does not come to that."""
        began = time.perf_counter()
        self.running = process.start(self.part)
        await process.wait_ready(self.part, self.running, READY_TIMEOUT_S)
        ready_ms = (time.perf_counter() - began) * 1e3
        if not self._listens():
            raise OperationalError(
                f"Another process listens on {self.target.address}, where {self.name} was to. "
                "Choose other ports: --port-base."
            )
        return ready_ms

    def _listens(self) -> bool:
        """Whether it was this process that said it is ready: its port was free for a moment."""
        assert self.running is not None
        listening = psutil.Process(self.running.pid).net_connections("tcp")
        return any(f"{at.laddr[0]}:{at.laddr[1]}" == self.target.address for at in listening if at.laddr)

    def cpu_s(self) -> float:
        assert self.running is not None
        times = psutil.Process(self.running.pid).cpu_times()
        return times.user + times.system

    async def stop(self) -> None:
        if self.running is not None:
            await process.stop(self.part, self.running)
            self.running = None

    def kill(self) -> None:
        if self.running is not None:
            process.kill_group(self.running.pid)
            self.running.wait()
            self.running = None

    def resident_mib(self) -> float:
        assert self.running is not None
        return float(psutil.Process(self.running.pid).memory_info().rss) / _MIB

    def metrics(self) -> dict[str, float]:
        """The unlabelled ones, by name."""
        with urllib.request.urlopen(
            f"http://{self.target.address}/metrics", timeout=10
        ) as answer:  # loopback
            lines = answer.read().decode().splitlines()
        pairs = (line.split(" ") for line in lines if not line.startswith("#") and "{" not in line)
        return {name: float(value) for name, value in pairs}

    def files_mib(self, suffix: str) -> float:
        """Of the database's files that end so: what `.sst` and `.log` (the WAL) take on disk."""
        return _size(self._files(suffix)) / _MIB

    def warm_pages(self) -> None:
        """Reads the store once, so that all of it is in the page cache, as far as that has room."""
        for path in self._files(".sst"):
            with suppress(FileNotFoundError), path.open("rb", buffering=0) as file:
                while file.read(_MIB):
                    pass

    def forget_pages(self) -> None:
        """Takes the store out of the page cache: what is read next comes from the disk."""
        os.sync()
        for path in self._files(".sst"):
            fd = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)

    def _files(self, suffix: str) -> list[Path]:
        return [path for path in (self.data_dir / DATABASE_DIR).iterdir() if path.suffix == suffix]


def new_shard(
    setup: Setup, name: str, data_dir: Path, port: int, settings: Mapping[str, str] | None = None
) -> Shard:
    """Not started yet; listens on `port` and the one after it."""
    listen, grpc = address(port), address(port + 1)
    part = shard_part(setup, name, data_dir, listen, grpc, settings)
    return Shard(name, data_dir, part, Target(listen, setup.api_key), grpc)


async def stop_all(shards: Iterable[Shard]) -> None:
    await asyncio.gather(*(shard.stop() for shard in shards))


def _size(paths: Iterable[Path]) -> int:
    total = 0
    for path in paths:
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # compaction has just deleted it
            continue
    return total
