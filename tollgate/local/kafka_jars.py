"""Apache Kafka's jars: fetched once, one by one, against a checked-in lock; offline afterwards.

Promises: a path that `ensure_jars` returns holds exactly the bytes that the lock names, whatever was killed
while fetching. jgo takes an interrupted fetch as valid for ever and mediates versions otherwise than Maven
does, so it only carries single artifacts into a staging folder here; a jar enters the cache by an atomic
rename after its SHA-256 was seen to fit. The cache is shared by every data folder of a user and guarded by a
file lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tollgate.errors import OperationalError

LOCK_FILE: Final = Path(__file__).with_name("kafka_jars.lock")
_FETCHERS: Final = 8
_FETCH_TIMEOUT_S: Final = 30

Progress = Callable[[int, int], None]  # jars that are there, jars in all
Fetch = Callable[["Jar", Path], Path]  # into a staging folder; returns the file


@dataclass(frozen=True)
class Jar:
    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        return f"{self.artifact}-{self.version}.jar"

    def __str__(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"

    @staticmethod
    def parse(coordinates: str, sha256: str) -> Jar:
        group, artifact, version = coordinates.split(":")
        return Jar(group, artifact, version, sha256)


def locked_jars(lock: Path = LOCK_FILE) -> list[Jar]:
    lines = (line.split() for line in lock.read_text().splitlines() if not line.startswith("#"))
    return [Jar.parse(coordinates, sha256) for coordinates, sha256 in lines]


def cache_dir() -> Path:
    """`TOLLGATE_CACHE`/jars, or `tollgate/jars` in the user's cache folder."""
    if override := os.environ.get("TOLLGATE_CACHE"):
        return Path(override).absolute() / "jars"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tollgate" / "jars"


def _nobody_watches(_done: int, _total: int) -> None:
    return None


def fetch_with_jgo(jar: Jar, staging: Path) -> Path:
    """One artifact, without its dependencies, by the ordinary Maven client."""
    from jgo.maven import MavenContext  # slow to import and needed once in a cache's life

    context = MavenContext(repo_cache=staging, timeout=_FETCH_TIMEOUT_S)
    artifact = context.project(jar.group, jar.artifact).at_version(jar.version).artifact()
    return Path(artifact.resolve())


def ensure_jars(
    cache: Path | None = None,
    progress: Progress = _nobody_watches,
    *,
    jars: Sequence[Jar] | None = None,
    fetch: Fetch = fetch_with_jgo,
) -> list[Path]:
    """Every locked jar's path, fetched where missing or damaged. Blocking; takes some 50 ms when all is
    there.

    Raises OperationalError when a jar can't be had or isn't the one that the lock names.
    """
    wanted = locked_jars() if jars is None else jars
    folder = cache_dir() if cache is None else cache
    try:
        missing = [jar for jar in wanted if not _is_whole(folder / jar.file_name, jar)]
        progress(len(wanted) - len(missing), len(wanted))
        if missing:
            with _exclusive(folder):
                _fetch_all(wanted, folder, progress, fetch)
    except OSError as error:
        raise OperationalError(
            f"Kafka's jars can't be kept in {folder}: {error.strerror or error}. "
            "Make that folder writable, or set TOLLGATE_CACHE to another one."
        ) from error
    return [folder / jar.file_name for jar in wanted]


def _fetch_all(wanted: Sequence[Jar], folder: Path, progress: Progress, fetch: Fetch) -> None:
    """Holds the cache's lock. What another process fetched while this one waited for the lock is taken as it
    is."""
    missing = [jar for jar in wanted if not _is_whole(folder / jar.file_name, jar)]
    staging = folder / ".staging"
    shutil.rmtree(staging, ignore_errors=True)  # left by a fetch that was killed
    staging.mkdir()
    done = len(wanted) - len(missing)
    pool = ThreadPoolExecutor(_FETCHERS)
    try:
        futures = [pool.submit(_fetch_one, jar, staging, folder, fetch) for jar in missing]
        for future in as_completed(futures):
            future.result()
            done += 1
            progress(done, len(wanted))
    finally:
        pool.shutdown(cancel_futures=True)
        shutil.rmtree(staging, ignore_errors=True)


def _fetch_one(jar: Jar, staging: Path, folder: Path, fetch: Fetch) -> None:
    try:
        fetched = fetch(jar, staging)
    except (OSError, RuntimeError) as error:  # requests' errors are OSErrors; jgo's own is a RuntimeError
        raise OperationalError(
            f"The jar {jar} of the embedded Kafka is not in {folder} and could not be fetched "
            f"({type(error).__name__}). Connect to the network once, "
            "or set TOLLGATE_KAFKA_BOOTSTRAP to a running Kafka.",
            jar=str(jar),
        ) from error
    if not _is_whole(fetched, jar):
        raise OperationalError(
            f"The jar {jar} that was fetched is not the one in the lock file (its SHA-256 differs). "
            "Nothing was installed; try again, and if it stays so ask who changes files on your network.",
            jar=str(jar),
        )
    fetched.replace(folder / jar.file_name)


def _is_whole(path: Path, jar: Jar) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == jar.sha256
    except FileNotFoundError:
        return False


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write_lock() -> None:
    """Coordinates from standard input, lock lines to standard output: for whoever raises Kafka's version."""
    staging = cache_dir() / ".locking"
    try:
        for line in sorted(sys.stdin.read().split()):
            jar = Jar.parse(line, sha256="")
            with fetch_with_jgo(jar, staging).open("rb") as file:
                sys.stdout.write(f"{jar} {hashlib.file_digest(file, 'sha256').hexdigest()}\n")
    finally:
        shutil.rmtree(staging, ignore_errors=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["--lock"]:
        _write_lock()
    else:
        ensure_jars(progress=lambda done, total: print(f"{done}/{total} jars", file=sys.stderr))  # noqa: T201
