"""Customers and payment methods on a real Postgres: over gRPC, and where payments name them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import grpc
import pytest

from processor.ledger import start_ledger
from processor.storage.vault import find_named
from tests.fixtures.changes import accepted_payment, change_record
from tests.fixtures.free_port import free_port
from tests.integration.processor.asking import drain, events
from tests.integration.processor.conftest import Bench
from tollgate.v1 import ledger_pb2
from tollgate.v1.ledger_pb2 import (
    CreateCustomerRequest,
    CreateCustomerResponse,
    CreatePaymentMethodRequest,
    CreatePaymentMethodResponse,
    Customer,
    DeletePaymentMethodRequest,
    FindCustomerRequest,
    FindPaymentMethodRequest,
    ListCustomersRequest,
    ListPaymentMethodsRequest,
    PaymentMethod,
)
from tollgate.v1.ledger_pb2_grpc import VaultStub
from tollgate.v1.payment_pb2 import MetadataEntry

if TYPE_CHECKING:
    from tollgate.v1.ledger_pb2_grpc import VaultAsyncStub

REUSED = ledger_pb2.REFUSAL_CODE_IDEMPOTENCY_KEY_REUSED
UNKNOWN = ledger_pb2.REFUSAL_CODE_UNKNOWN_CUSTOMER


@pytest.fixture
async def vault(bench: Bench) -> AsyncIterator[VaultAsyncStub]:
    listen = f"127.0.0.1:{free_port()}"
    async with grpc.aio.insecure_channel(listen) as channel:
        server = await start_ledger(listen, bench.pool, lambda _key: None, bench.clock, lambda: None)
        yield VaultStub(channel)
        await server.stop(0)


async def make_customer(
    vault: VaultAsyncStub, name: str = "Ada", key: str = "", merchant: str = "acme", **metadata: str
) -> CreateCustomerResponse:
    entries = [MetadataEntry(key=each, value=value) for each, value in metadata.items()]
    customer = Customer(name=name, email="ada@example.com", metadata=entries)
    return await vault.CreateCustomer(
        CreateCustomerRequest(merchant=merchant, customer=customer, idempotency_key=key)
    )


async def make_method(
    vault: VaultAsyncStub, named: str = "pm_ok", customer_id: str = "", key: str = "", merchant: str = "acme"
) -> CreatePaymentMethodResponse:
    method = PaymentMethod(token=named, customer_id=customer_id)
    return await vault.CreatePaymentMethod(
        CreatePaymentMethodRequest(merchant=merchant, payment_method=method, idempotency_key=key)
    )


async def test_what_is_made_is_found_by_its_merchant_alone_as_it_was_given(vault: VaultAsyncStub) -> None:
    made = (await make_customer(vault, zeta="1", alpha="☕")).created
    assert made.id.startswith("cus_")
    assert [entry.key for entry in made.metadata] == ["zeta", "alpha"]
    found = await vault.FindCustomer(FindCustomerRequest(merchant="acme", id=made.id))
    assert found.customer == made
    other = await vault.FindCustomer(FindCustomerRequest(merchant="zeta", id=made.id))
    assert not other.HasField("customer")
    method = (await make_method(vault, customer_id=made.id)).created
    kept = await vault.FindPaymentMethod(FindPaymentMethodRequest(merchant="acme", id=method.id))
    assert kept.payment_method == method
    assert (method.id[:4], method.token, method.customer_id) == ("pmt_", "pm_ok", made.id)
    hidden = await vault.FindPaymentMethod(FindPaymentMethodRequest(merchant="zeta", id=method.id))
    assert not hidden.HasField("payment_method")


async def test_without_a_key_each_is_new_and_under_one_it_is_made_once(
    bench: Bench, vault: VaultAsyncStub
) -> None:
    free = [(await make_customer(vault)).created.id for _ in range(2)]
    assert len(set(free)) == 2
    answers = await asyncio.gather(*(make_customer(vault, key="k", a="1", b="2") for _ in range(6)))
    assert sorted(answer.WhichOneof("answer") or "" for answer in answers) == ["created", *5 * ["known"]]
    assert len({answer.created.id or answer.known.id for answer in answers}) == 1
    assert (await make_customer(vault, key="k", b="2", a="1")).HasField("known")
    assert (await make_customer(vault, "Bob", key="k")).refusal.code == REUSED
    assert (await make_customer(vault, key="k", merchant="zeta")).HasField("created")
    assert (await make_method(vault, key="k")).HasField("created"), "a key's scope is its kind"
    assert (await make_method(vault, key="k")).HasField("known")
    assert (await make_method(vault, "pm_other", key="k")).refusal.code == REUSED
    assert await bench.pool.fetchval("SELECT count(*) FROM customers WHERE merchant = 'acme'") == 3


async def test_a_method_may_be_a_customers_of_ours_or_anyone_elses(vault: VaultAsyncStub) -> None:
    theirs = (await make_customer(vault, merchant="zeta")).created.id
    for nobody in ("cus_nobody", theirs):
        assert (await make_method(vault, customer_id=nobody)).refusal.code == UNKNOWN
    assert (await make_method(vault, customer_id="customer-77")).HasField("created")


async def test_lists_are_newest_first_in_pages_and_without_what_was_deleted(
    bench: Bench, vault: VaultAsyncStub
) -> None:
    made = []
    for number in range(5):  # two at a time in the same microsecond
        bench.clock.advance(number % 2)
        made.append((await make_method(vault, customer_id="mine" if number % 2 else "")).created)
    await make_method(vault, merchant="zeta")
    newest = [one.id for one in sorted(made, key=lambda one: (one.created_at_us, one.id), reverse=True)]
    request = ListPaymentMethodsRequest(merchant="acme", limit=2)
    pages = []
    while True:
        page = await vault.ListPaymentMethods(request)
        pages.append([method.id for method in page.payment_methods])
        if not page.HasField("next"):
            break
        request.after.CopyFrom(page.next)
    assert pages == [newest[:2], newest[2:4], newest[4:]]
    await vault.DeletePaymentMethod(DeletePaymentMethodRequest(merchant="acme", id=made[1].id))
    of_one = await vault.ListPaymentMethods(
        ListPaymentMethodsRequest(merchant="acme", customer_id="mine", limit=100)
    )
    assert [method.id for method in of_one.payment_methods] == [made[3].id]
    customers = [(await make_customer(vault)).created.id for _ in range(3)]
    first = await vault.ListCustomers(ListCustomersRequest(merchant="acme", limit=2))
    rest = await vault.ListCustomers(ListCustomersRequest(merchant="acme", limit=2, after=first.next))
    assert sorted(one.id for one in (*first.customers, *rest.customers)) == sorted(customers)
    assert not rest.HasField("next")


async def test_a_deleted_method_is_gone_and_deleting_it_again_changes_nothing(
    bench: Bench, vault: VaultAsyncStub
) -> None:
    made = (await make_method(vault)).created
    other = DeletePaymentMethodRequest(merchant="zeta", id=made.id)
    assert not (await vault.DeletePaymentMethod(other)).found
    for _again in range(2):
        request = DeletePaymentMethodRequest(merchant="acme", id=made.id)
        assert (await vault.DeletePaymentMethod(request)).found
        bench.clock.advance(1)
    gone = await vault.FindPaymentMethod(FindPaymentMethodRequest(merchant="acme", id=made.id))
    assert not gone.HasField("payment_method")
    deleted = await bench.pool.fetchval("SELECT deleted_at FROM payment_methods WHERE id = $1", made.id)
    assert deleted == bench.clock.now_us() - 2_000_000


async def take_in(bench: Bench, method: str, customer: str = "", checkout_id: str = "checkout-0001") -> None:
    payment = accepted_payment(checkout_id)
    payment.payment_method, payment.customer_id = method, customer
    await bench.take_in(change_record(payment))


async def test_a_payment_is_sent_with_the_token_and_keeps_the_name_that_it_was_given(
    bench: Bench, vault: VaultAsyncStub
) -> None:
    customer = (await make_customer(vault)).created.id
    method = (await make_method(vault, "tok_of_the_psp", customer)).created.id
    await take_in(bench, method, customer)
    await drain(bench)
    assert json.loads(bench.psp.sent[0].body)["payment_method"] == "tok_of_the_psp"
    row = await bench.payment()
    assert (row["status"], row["payment_method"], row["customer_id"]) == ("succeeded", method, customer)
    await vault.DeletePaymentMethod(DeletePaymentMethodRequest(merchant="acme", id=method))
    await take_in(bench, method, customer, "checkout-0002")
    await drain(bench)
    assert (await bench.payment("checkout-0002"))["failure_code"] == "unknown_payment_method"
    assert len(bench.psp.sent) == 1


@pytest.mark.parametrize(
    ("method", "customer", "code"),
    [("pm_ok", "cus_nobody", "unknown_customer"), ("pmt_nothing", "customer-1", "unknown_payment_method")],
)
async def test_a_payment_that_names_what_is_not_there_fails_and_the_psp_never_hears_of_it(
    bench: Bench, method: str, customer: str, code: str
) -> None:
    await take_in(bench, method, customer)
    await take_in(bench, "pm_ok", "customer-1", "checkout-0002")
    await drain(bench)
    row = await bench.payment()
    assert (row["status"], row["failure_code"]) == ("failed", code)
    assert row["failure_message"]
    operation = await bench.operation()
    assert (operation["status"], operation["failure_code"]) == ("failed", code)
    assert (await bench.payment("checkout-0002"))["status"] == "succeeded"
    assert len(bench.psp.sent) == 1
    assert await bench.pool.fetchval("SELECT count(*) FROM risk.assessments") == 1


async def test_a_method_that_is_deleted_between_two_steps_is_still_the_payments(
    bench: Bench, vault: VaultAsyncStub
) -> None:
    bench.psp.has_two_steps = True
    method = (await make_method(vault, "tok_of_the_psp")).created.id
    await take_in(bench, method)
    await bench.run_due()
    await vault.DeletePaymentMethod(DeletePaymentMethodRequest(merchant="acme", id=method))
    await drain(bench)
    tokens = [json.loads(request.body)["payment_method"] for request in bench.psp.sent]
    assert tokens == ["tok_of_the_psp", "tok_of_the_psp"]
    assert (await bench.payment())["status"] == "succeeded"
    assert (await events(bench))[-1] == "payment.succeeded"


async def test_only_what_is_named_is_looked_for(bench: Bench, vault: VaultAsyncStub) -> None:
    made = [(await make_customer(vault)).created.id for _ in range(2)]
    customers, kept = await find_named(bench.pool, {("acme", made[0]), ("zeta", made[1])}, set())
    assert (customers, kept) == ({("acme", made[0])}, {})
