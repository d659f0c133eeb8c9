"""The embedded PostgreSQL comes up, is durable, and comes back after anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import psutil
import pytest

from tests.fixtures.free_port import free_port
from tollgate.local import process
from tollgate.local.part import Part
from tollgate.local.postgres import postgres_dsn, postgres_part


@pytest.fixture
def folder() -> Iterator[Path]:
    """pytest's own tmp_path is closed to others; this one is open, as a checkout usually is."""
    path = Path(tempfile.mkdtemp(prefix="tollgate-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@asynccontextmanager
async def running(part: Part) -> AsyncIterator[subprocess.Popen[bytes]]:
    started = process.start(part)
    try:
        await process.wait_ready(part, started, timeout_s=30)
        yield started
    finally:
        await process.stop(part, started)


async def ask(port: int, query: str) -> object:
    connection = await asyncpg.connect(postgres_dsn(port), timeout=5)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_it_serves_the_role_and_the_database_with_durability_on_and_keeps_what_was_stored(
    folder: Path,
) -> None:
    port = free_port()
    part = postgres_part(folder / "data", folder / "log", port)
    async with running(part):
        assert await ask(port, "SHOW fsync") == "on"
        assert await ask(port, "SHOW synchronous_commit") == "on"
        assert (
            await ask(port, "SELECT current_user::text || ' ' || current_database()") == "tollgate tollgate"
        )
        await ask(port, "CREATE TABLE kept AS SELECT 42 AS answer")
    async with running(part) as second:
        assert await ask(port, "SELECT answer FROM kept") == 42
    assert second.returncode == 0


async def test_the_superuser_can_t_be_reached_from_anywhere_in_an_older_folder_either(
    folder: Path,
) -> None:
    port = free_port()
    part = postgres_part(folder / "data", folder / "log", port)
    part.prepare()
    (folder / "data" / "pg_hba.conf").write_text("host all all 127.0.0.1/32 trust\n")
    async with running(part):
        assert await ask(port, "SELECT 1") == 1
        for database in ("postgres", "tollgate"):
            with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
                await asyncpg.connect(f"postgresql://postgres@127.0.0.1:{port}/{database}", timeout=5)


@pytest.mark.fault
async def test_after_kill_9_of_the_postmaster_it_comes_back_with_what_was_committed(folder: Path) -> None:
    port = free_port()
    part = postgres_part(folder / "data", folder / "log", port)
    async with running(part) as first:
        held = await asyncpg.connect(postgres_dsn(port))
        await held.execute("CREATE TABLE kept AS SELECT 1 AS answer")
        backend = psutil.Process(await held.fetchval("SELECT pg_backend_pid()"))
        backend.suspend()  # a backend that is slow to notice that its postmaster is gone
        first.kill()
        first.wait()
        held.terminate()
        async with running(part):
            assert await ask(port, "SELECT answer FROM kept") == 1
        assert not backend.is_running()


async def test_an_interrupted_initdb_is_started_over(folder: Path) -> None:
    torn = folder / "data.new"
    torn.mkdir()
    (torn / "PG_VERSION").write_text("18\n")
    port = free_port()
    part = postgres_part(folder / "data", folder / "log", port)
    async with running(part):
        assert await ask(port, "SELECT 1") == 1
    assert not torn.exists()


async def test_a_stale_pid_file_that_names_a_living_stranger_does_not_stop_the_start(folder: Path) -> None:
    port = free_port()
    part = postgres_part(folder / "data", folder / "log", port)
    part.prepare()
    (folder / "data" / "postmaster.pid").write_text(
        f"{os.getpid()}\n{folder / 'data'}\n0\n{port}\n\n127.0.0.1\n"
    )
    async with running(part):
        assert await ask(port, "SELECT 1") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs a namespace")
async def test_as_root_it_also_runs_below_a_folder_that_is_closed_to_others(folder: Path) -> None:
    port = free_port()
    opened = postgres_part(folder / "data", folder / "log", port)
    assert opened.user is not None
    async with running(opened):
        await ask(port, "CREATE TABLE kept AS SELECT 7 AS answer")
    os.chmod(folder, 0o700)
    closed = postgres_part(folder / "data", folder / "log", port)
    assert closed.user is None
    async with running(closed):
        assert await ask(port, "SELECT answer FROM kept") == 7


async def test_another_server_on_the_same_port_is_not_taken_for_this_one(folder: Path) -> None:
    port = free_port()
    async with running(postgres_part(folder / "data", folder / "log", port)):
        assert not await postgres_part(folder / "other", folder / "log", port).is_ready()
