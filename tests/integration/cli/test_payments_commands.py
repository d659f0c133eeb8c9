"""`tollgate payments parked | resolve` on a real Postgres."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from typer.testing import CliRunner, Result

from processor.changes import parse
from processor.storage.database import open_pool
from processor.storage.intake import Acceptance, ingest
from processor.storage.migrate import migrate
from processor.storage.operations import claim
from tests.fixtures.changes import NOW_US, accepted_payment, change_record
from tollgate.cli.main import build_app


@pytest.fixture
async def dsn(postgres_dsn: str) -> str:
    """A payment whose execution is parked."""
    await asyncio.to_thread(migrate, postgres_dsn)
    pool = await open_pool(postgres_dsn, 1)
    change = parse(change_record(accepted_payment()), NOW_US)
    assert isinstance(change, Acceptance)
    await ingest(pool, [change], [], NOW_US)
    await claim(pool, 1, 15.0, NOW_US, 0.0)
    await pool.execute("UPDATE operations SET parked_reason = 'in doubt, and too old', claimable_at = NULL")
    await pool.close()
    return postgres_dsn


async def command(dsn: str, *arguments: str) -> Result:
    environment = {"TOLLGATE_POSTGRES_DSN": dsn, "TOLLGATE_KAFKA_BOOTSTRAP": "127.0.0.1:1"}
    runner = CliRunner()
    return await asyncio.to_thread(
        lambda: runner.invoke(build_app("payments"), ["payments", *arguments], env=environment)
    )


async def test_what_is_listed_is_resolved_once_and_by_whom_is_kept(dsn: str) -> None:
    listed = await command(dsn, "parked")
    assert listed.exit_code == 0, listed.output
    lines = listed.stdout.splitlines()
    assert lines[0].startswith("acme/checkout-0001 operation payment: payment of 1234 USD at simulator")
    assert (lines[1], lines[-1]) == ("  parked: in doubt, and too old", "1 parked")

    resolve = ("resolve", "acme/checkout-0001", "--as", "not_executed", "--because", "asked their support")
    unsure = await command(dsn, *resolve)  # nobody answers the question
    assert unsure.exit_code == 1
    done = await command(dsn, *resolve, "--yes")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(
        "Resolution 1: acme/checkout-0001, operation payment, not_executed: version 3"
    )
    again = await command(dsn, *resolve, "--yes")
    assert (again.exit_code, "is parked" in again.stderr) == (2, True)
    assert (await command(dsn, "parked")).stdout == "nothing is parked\n"

    connection = await asyncpg.connect(dsn)
    [record] = await connection.fetch("SELECT reason, decided_by FROM resolutions")
    status = await connection.fetchval("SELECT status FROM payments")
    await connection.close()
    assert (record["reason"], "@" in record["decided_by"], status) == ("asked their support", True, "failed")


async def test_a_word_without_a_reason_or_a_place_is_none(dsn: str) -> None:
    for wrong in (
        ("acme/checkout-0001", "--as", "not_executed", "--because", " "),
        ("checkout-0001", "--as", "not_executed", "--because", "no trace"),
        ("acme/checkout-0001", "--as", "maybe", "--because", "no trace"),
    ):
        refused = await command(dsn, "resolve", *wrong, "--yes")
        assert refused.exit_code == 2
    assert (await command(dsn, "parked")).stdout.endswith("1 parked\n")
