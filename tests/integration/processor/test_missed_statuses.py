"""What a shard missed, asked of the Ledger: each of its payments once, as Postgres has it now."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import grpc
import pytest

from processor.ledger import start_ledger
from processor.storage.outbox import VersionsPage, latest_versions
from tests.fixtures.changes import NOW_US, accepted_payment, change_record
from tests.fixtures.free_port import free_port
from tests.integration.processor.asking import find_payment
from tests.integration.processor.conftest import Bench
from tollgate.errors import RejectedInput
from tollgate.v1.ledger_pb2 import ListShardPaymentsRequest
from tollgate.v1.ledger_pb2_grpc import LedgerStub
from tollgate.v1.payment_pb2 import Payment

if TYPE_CHECKING:
    from tollgate.v1.ledger_pb2_grpc import LedgerAsyncStub

OWNED_BY_SEVEN = "owned-by-7"


@pytest.fixture
async def stub(bench: Bench) -> AsyncIterator[LedgerAsyncStub]:
    listen = f"127.0.0.1:{free_port()}"
    owner_of = {OWNED_BY_SEVEN: 7}.get
    server = await start_ledger(listen, bench.pool, owner_of, bench.clock, lambda: None)
    async with grpc.aio.insecure_channel(listen) as channel:
        yield LedgerStub(channel)
    await server.stop(0)


async def take_in(bench: Bench, shard: int, *ids: str) -> None:
    await bench.take_in(*(change_record(accepted_payment(one), shard=shard) for one in ids))


async def pages(bench: Bench, shard: int, limit: int, since_us: int = 0) -> list[VersionsPage]:
    found = [await latest_versions(bench.pool, shard, since_us, "", limit)]
    while found[-1].next_cursor:
        found.append(await latest_versions(bench.pool, shard, since_us, found[-1].next_cursor, limit))
    return found


async def test_each_payment_of_the_shard_comes_once_as_it_stands(bench: Bench, stub: LedgerAsyncStub) -> None:
    await take_in(bench, 7, "checkout-0001", "checkout-0002")
    await take_in(bench, 2, "checkout-0003", OWNED_BY_SEVEN)
    await bench.run_due()
    await take_in(bench, 7, "checkout-0004")
    answer = await stub.ListShardPayments(ListShardPaymentsRequest(shard=7))
    assert answer.next_cursor == ""
    assert answer.payments[0].checkout_id == "checkout-0004"
    assert sorted(payment.checkout_id for payment in answer.payments) == [
        "checkout-0001",
        "checkout-0002",
        "checkout-0004",
        OWNED_BY_SEVEN,
    ]
    for payment in answer.payments:
        assert payment == await find_payment(bench.pool, "acme", payment.checkout_id)
    nobodys = await stub.ListShardPayments(ListShardPaymentsRequest(shard=9))
    assert not nobodys.payments


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_pages_of_any_size_hold_every_payment_once(bench: Bench, limit: int) -> None:
    ids = [f"checkout-{number:04}" for number in range(6)]
    await take_in(bench, 7, *ids[:4])
    await bench.run_due()
    await take_in(bench, 7, *ids[4:])
    found = [version for page in await pages(bench, 7, limit) for version in page.versions]
    assert sorted(version.checkout_id for version in found) == ids
    assert all(version.is_shipped for version in found)
    assert {Payment.FromString(version.snapshot).version for version in found} == {1, 3}


async def test_it_goes_back_no_further_than_it_has_to(bench: Bench) -> None:
    await take_in(bench, 7, "checkout-0001", "checkout-0002")
    bench.clock.advance(3_600)
    await take_in(bench, 7, "checkout-0003")
    since_us = NOW_US + 1_800_000_000
    found = await pages(bench, 7, 1, since_us)
    assert found[0].versions[0].checkout_id == "checkout-0003"
    assert len(found) == 2  # the first one that is older says so


async def test_a_cursor_that_is_none_is_refused(bench: Bench, stub: LedgerAsyncStub) -> None:
    with pytest.raises(RejectedInput):
        await latest_versions(bench.pool, 7, 0, "1; DROP TABLE payments")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.ListShardPayments(ListShardPaymentsRequest(shard=7, cursor="x"))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
