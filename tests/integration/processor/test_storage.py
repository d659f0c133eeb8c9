"""The schema and what the database itself refuses."""

from __future__ import annotations

import asyncio

import asyncpg
import grpc
import pytest

from processor.ledger import start_ledger
from processor.storage.database import Pool, translated
from processor.storage.merchants import list_merchants, upsert_merchant
from processor.storage.migrate import migrate
from tests.fixtures.changes import accepted_payment, change_record
from tests.fixtures.free_port import free_port
from tests.integration.processor.asking import find_payment
from tests.integration.processor.conftest import Bench
from tollgate.errors import OperationalError, RejectedInput
from tollgate.ids import api_key_hash
from tollgate.status import NAME, TRANSITIONS
from tollgate.v1.ledger_pb2 import FindPaymentsRequest, ListMerchantsRequest, PaymentName
from tollgate.v1.ledger_pb2_grpc import LedgerStub


async def test_the_migrations_run_from_nothing_once_whoever_starts_them(postgres_dsn: str) -> None:
    applied = await asyncio.gather(*(asyncio.to_thread(migrate, postgres_dsn) for _ in range(3)))
    assert sorted(applied)[:2] == [0, 0]
    assert sum(applied) >= 2
    assert await asyncio.to_thread(migrate, postgres_dsn) == 0


async def test_a_migration_lock_left_by_a_killed_process_holds_nobody_up(postgres_dsn: str) -> None:
    await asyncio.to_thread(migrate, postgres_dsn)
    connection = await asyncpg.connect(postgres_dsn)
    await connection.execute("INSERT INTO yoyo_lock (locked, ctime, pid) VALUES (1, now(), 1)")
    await connection.close()
    assert await asyncio.to_thread(migrate, postgres_dsn) == 0


async def test_without_a_server_the_migration_says_so() -> None:
    with pytest.raises(OperationalError, match="could not be brought up to date"):
        await asyncio.to_thread(migrate, f"postgresql://tollgate@127.0.0.1:{free_port()}/tollgate")


async def test_the_database_holds_the_same_status_table_as_the_code(bench: Bench) -> None:
    rows = await bench.pool.fetch("SELECT before_status, after_status FROM payment_transitions")
    assert {(row["before_status"], row["after_status"]) for row in rows} == {
        (NAME[before], NAME[after]) for before, following in TRANSITIONS.items() for after in following
    }


async def test_what_postgres_says_of_a_refused_content_is_told_without_the_content(pool: Pool) -> None:
    for refused in ("Someone's name", 7):
        with pytest.raises(RejectedInput) as caught, translated("storing a merchant"):
            await pool.execute("INSERT INTO merchants (id, default_psp) VALUES ($1, 'simulator')", refused)
        assert str(refused) not in caught.value.message
    assert "merchants_id_check" in (await refusal_of(pool)).message


async def refusal_of(pool: Pool) -> RejectedInput:
    with pytest.raises(RejectedInput) as caught, translated("storing a merchant"):
        await pool.execute("INSERT INTO merchants (id, default_psp) VALUES ('Not A Merchant', 'simulator')")
    return caught.value


@pytest.mark.parametrize(
    "change",
    [
        "status = 'succeeded', version = version + 1",  # pending → succeeded is not in the table
        "status = 'processing'",  # the version has to rise
        "version = version + 2",
        "captured_amount = amount + 1, version = version + 1",
        "refunded_amount = 1, version = version + 1",
    ],
)
async def test_the_database_refuses_what_the_code_must_not_do(bench: Bench, change: str) -> None:
    await bench.take_in(change_record(accepted_payment()))
    with pytest.raises(asyncpg.CheckViolationError):
        await bench.pool.execute(f"UPDATE payments SET {change}")  # noqa: S608


async def test_a_payment_comes_back_as_it_went_in(bench: Bench) -> None:
    await bench.take_in(change_record(accepted_payment()))
    found = await find_payment(bench.pool, "acme", "checkout-0001")
    assert found is not None
    expected = accepted_payment()
    expected.version = 1
    expected.updated_at_us = bench.clock.now_us()
    assert found == expected


async def test_the_ledger_finds_payments_and_lists_merchants_with_hashes_only(bench: Bench) -> None:
    await bench.take_in(change_record(accepted_payment()))
    for key in ("tg_sk_one", "tg_sk_two", "tg_sk_two"):
        await upsert_merchant(bench.pool, "acme", "simulator", api_key_hash(key))
    await bench.pool.execute(
        "UPDATE api_keys SET revoked_at = now() WHERE key_hash = $1", api_key_hash("tg_sk_one")
    )
    listen = f"127.0.0.1:{free_port()}"
    server = await start_ledger(listen, bench.pool, lambda _checkout_id: None, bench.clock, lambda: None)
    try:
        async with grpc.aio.insecure_channel(listen) as channel:
            stub = LedgerStub(channel)
            names = [PaymentName(merchant="acme", checkout_id=f"checkout-000{number}") for number in (2, 1)]
            found = (await stub.FindPayments(FindPaymentsRequest(names=names))).payments
            with pytest.raises(grpc.aio.AioRpcError, match="at most 100 at a time"):
                await stub.FindPayments(FindPaymentsRequest(names=names * 51))
            merchants = (await stub.ListMerchants(ListMerchantsRequest())).merchants
    finally:
        await server.stop(0)
    assert [(payment.checkout_id, payment.version) for payment in found] == [("checkout-0001", 1)]
    assert [(merchant.id, list(merchant.api_key_hashes)) for merchant in merchants] == [
        ("acme", [api_key_hash("tg_sk_two")])
    ]
    assert list(merchants) == await list_merchants(bench.pool)


async def test_a_second_ledger_on_the_same_port_is_refused_and_takes_no_calls_unseen(bench: Bench) -> None:
    listen = f"127.0.0.1:{free_port()}"
    server = await start_ledger(listen, bench.pool, lambda _checkout_id: None, bench.clock, lambda: None)
    try:
        with pytest.raises(RuntimeError):
            await start_ledger(listen, bench.pool, lambda _checkout_id: None, bench.clock, lambda: None)
    finally:
        await server.stop(0)
