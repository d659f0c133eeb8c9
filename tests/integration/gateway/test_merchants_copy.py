"""The copy of the merchants: fetched from whichever Ledger answers, durable, loaded at the next start."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from grpc import aio

from gateway.errors import NotReady
from gateway.merchants import Merchants, normalized
from gateway.rpc.ledger import LedgerClient
from tests.fixtures.free_port import free_port
from tollgate.errors import OperationalError
from tollgate.ids import api_key_hash
from tollgate.v1.ledger_pb2 import (
    FindPaymentsRequest,
    FindPaymentsResponse,
    ListMerchantsRequest,
    ListMerchantsResponse,
    ListShardPaymentsRequest,
    ListShardPaymentsResponse,
    Merchant,
)
from tollgate.v1.ledger_pb2_grpc import LedgerServicer, add_LedgerServicer_to_server

KEY = "tg_sk_of_the_merchant"
ACME = Merchant(id="acme", default_psp="stripe", api_key_hashes=[api_key_hash(KEY)])
ZETA = Merchant(id="zeta", api_key_hashes=[b"\2" * 32, b"\1" * 32])


class FakeLedger(LedgerServicer):
    async def ListMerchants(
        self, request: ListMerchantsRequest, context: aio.ServicerContext[Any, Any]
    ) -> ListMerchantsResponse:
        return ListMerchantsResponse(merchants=[ZETA, ACME])

    async def FindPayments(
        self, request: FindPaymentsRequest, context: aio.ServicerContext[Any, Any]
    ) -> FindPaymentsResponse:
        return FindPaymentsResponse()

    async def ListShardPayments(
        self, request: ListShardPaymentsRequest, context: aio.ServicerContext[Any, Any]
    ) -> ListShardPaymentsResponse:
        return ListShardPaymentsResponse()


@pytest.fixture
async def ledger() -> AsyncIterator[str]:
    address = f"127.0.0.1:{free_port()}"
    server = aio.server()
    add_LedgerServicer_to_server(FakeLedger(), server)  # type: ignore[abstract]
    server.add_insecure_port(address)
    await server.start()
    yield address
    await server.stop(None)


async def test_any_ledger_that_answers_will_do(ledger: str) -> None:
    client = LedgerClient([f"127.0.0.1:{free_port()}", ledger])
    for _ in range(2):
        assert len((await client.list_merchants()).merchants) == 2
    await client.close()


async def test_without_a_ledger_it_says_so() -> None:
    client = LedgerClient([f"127.0.0.1:{free_port()}"])
    with pytest.raises(OperationalError, match="No Ledger answered"):
        await client.list_merchants()
    await client.close()


def test_the_copy_is_the_same_however_it_was_ordered() -> None:
    turned = Merchant(id="zeta", api_key_hashes=[b"\1" * 32, b"\2" * 32])
    assert normalized([ZETA, ACME]) == normalized([ACME, turned])
    assert normalized([ACME, Merchant(id="Not/One")]) == normalized([ACME])


def test_a_key_is_known_from_the_copy_and_gone_with_it() -> None:
    merchants = Merchants("simulator", ("tg_sk_of_development", "demo"))
    with pytest.raises(NotReady):
        merchants.find(KEY)
    merchants.load(normalized([ACME]))
    account = merchants.find(KEY)
    assert account is not None
    assert (account.merchant, account.default_psp) == ("acme", "stripe")
    merchants.load(normalized([ZETA]))
    assert merchants.find(KEY) is None
    development = merchants.find("tg_sk_of_development")
    assert development is not None
    assert (development.merchant, development.default_psp) == ("demo", "simulator")
