"""The Ledger over gRPC: typed answers, what they wake, and pages of payments."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import pytest

from processor.ledger import start_ledger
from tests.fixtures.changes import NOW_US, accepted_payment, change_record
from tests.fixtures.free_port import free_port
from tests.integration.processor.asking import drain, paid
from tests.integration.processor.conftest import Bench
from tollgate.status import PENDING, SUCCEEDED
from tollgate.v1 import ledger_pb2
from tollgate.v1.ledger_pb2 import (
    FindOperationRequest,
    ListPaymentsRequest,
    Metadata,
    RequestOperationRequest,
    UpdatePaymentRequest,
)
from tollgate.v1.ledger_pb2_grpc import LedgerStub
from tollgate.v1.payment_pb2 import MetadataEntry, OperationStatus, OperationType

if TYPE_CHECKING:
    from tollgate.v1.ledger_pb2_grpc import LedgerAsyncStub

REFUND = OperationType.OPERATION_TYPE_REFUND


@dataclass
class Served:
    """A Ledger that listens, and how often it woke the others."""

    stub: LedgerAsyncStub
    wakes: int = 0


@pytest.fixture
async def served(bench: Bench) -> AsyncIterator[Served]:
    listen = f"127.0.0.1:{free_port()}"

    def on_accepted() -> None:
        made.wakes += 1

    async with grpc.aio.insecure_channel(listen) as channel:
        made = Served(LedgerStub(channel))
        server = await start_ledger(listen, bench.pool, lambda _key: None, bench.clock, on_accepted)
        yield made
        await server.stop(0)


def refund(
    key: str, amount: int | None = None, checkout_id: str = "checkout-0001"
) -> RequestOperationRequest:
    return RequestOperationRequest(
        merchant="acme", checkout_id=checkout_id, type=REFUND, amount=amount, idempotency_key=key
    )


async def test_an_operation_is_accepted_known_and_refused_each_as_an_answer_of_its_own(
    bench: Bench, served: Served
) -> None:
    await paid(bench)
    accepted = await served.stub.RequestOperation(refund("one", 1000))
    assert accepted.WhichOneof("answer") == "accepted"
    assert (accepted.accepted.amount, accepted.payment.version) == (1000, 4)
    assert list(accepted.payment.operations) == [accepted.accepted]
    known = await served.stub.RequestOperation(refund("one", 1000))
    assert (known.WhichOneof("answer"), known.known) == ("known", accepted.accepted)
    answers = {
        "one": await served.stub.RequestOperation(refund("one", 999)),
        "two": await served.stub.RequestOperation(refund("two", 235)),
        "three": await served.stub.RequestOperation(refund("three", checkout_id="checkout-9999")),
    }
    codes = {key: ledger_pb2.RefusalCode.Name(answer.refusal.code) for key, answer in answers.items()}
    assert codes == {
        "one": "REFUSAL_CODE_IDEMPOTENCY_KEY_REUSED",
        "two": "REFUSAL_CODE_AMOUNT_TOO_LARGE",
        "three": "REFUSAL_CODE_NOT_YET_PROCESSED",
    }
    assert served.wakes == 1
    await drain(bench)
    wanted = FindOperationRequest(
        merchant="acme", checkout_id="checkout-0001", operation_id=accepted.accepted.id
    )
    found = (await served.stub.FindOperation(wanted)).operation
    assert found.status == OperationStatus.OPERATION_STATUS_SUCCEEDED
    own = FindOperationRequest(merchant="acme", checkout_id="checkout-0001", operation_id="payment")
    assert not (await served.stub.FindOperation(own)).HasField("operation")
    others = FindOperationRequest(merchant="zeta", checkout_id="checkout-0001", operation_id=found.id)
    assert not (await served.stub.FindOperation(others)).HasField("operation")


@pytest.mark.parametrize(
    "wrong",
    [
        RequestOperationRequest(merchant="acme", checkout_id="checkout-0001", idempotency_key="k"),
        RequestOperationRequest(merchant="acme", checkout_id="checkout-0001", type=REFUND),
        RequestOperationRequest(
            merchant="acme", checkout_id="checkout-0001", type=REFUND, amount=0, idempotency_key="k"
        ),
    ],
)
async def test_what_no_shard_asks_is_no_operation(
    bench: Bench, served: Served, wrong: RequestOperationRequest
) -> None:
    await paid(bench)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.RequestOperation(wrong)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not await bench.pool.fetchval("SELECT count(*) FROM operations WHERE number > 0")


async def test_a_change_leaves_what_it_does_not_name_as_it_is(bench: Bench, served: Served) -> None:
    await paid(bench)
    request = UpdatePaymentRequest(merchant="acme", checkout_id="checkout-0001", version=3)
    request.description = "Tea"
    renamed = await served.stub.UpdatePayment(request)
    assert (renamed.payment.version, renamed.payment.description) == (4, "Tea")
    assert [entry.key for entry in renamed.payment.metadata] == ["zeta", "alpha"]
    entries = [MetadataEntry(key="k", value="v")]
    again = UpdatePaymentRequest(merchant="acme", checkout_id="checkout-0001", version=4)
    again.metadata.CopyFrom(Metadata(entries=entries))
    changed = await served.stub.UpdatePayment(again)
    assert (list(changed.payment.metadata), changed.payment.description) == (entries, "Tea")
    stale = await served.stub.UpdatePayment(again)
    assert stale.refusal.code == ledger_pb2.REFUSAL_CODE_VERSION_MISMATCH
    assert served.wakes == 2


async def pages(served: Served, limit: int, **wanted: object) -> list[list[str]]:
    request = ListPaymentsRequest(merchant="acme", limit=limit, **wanted)  # type: ignore[arg-type]
    found: list[list[str]] = []
    while True:
        answer = await served.stub.ListPayments(request)
        found.append([payment.checkout_id[-1] for payment in answer.payments])
        if not answer.HasField("next"):
            return found
        request.after.CopyFrom(answer.next)


async def test_a_list_is_newest_first_in_pages_that_newcomers_do_not_move(
    bench: Bench, served: Served
) -> None:
    for number in range(6):  # two at a time came in the same microsecond
        payment = accepted_payment(f"checkout-000{number}", now_us=NOW_US + number // 2 * 1_000_000)
        payment.customer_id = "customer-even" if number % 2 == 0 else ""
        await bench.take_in(change_record(payment))
    await bench.take_in(change_record(accepted_payment("checkout-0009", merchant="zeta")))
    assert await pages(served, 100) == [["5", "4", "3", "2", "1", "0"]]
    assert await pages(served, 4) == [["5", "4", "3", "2"], ["1", "0"]]
    assert await pages(served, 3) == [["5", "4", "3"], ["2", "1", "0"]]
    assert await pages(served, 2, customer_id="customer-even") == [["4", "2"], ["0"]]
    since, until = NOW_US + 1_000_000, NOW_US + 2_000_000
    assert await pages(served, 9, created_from_us=since, created_before_us=until) == [["3", "2"]]
    assert await pages(served, 9, created_before_us=since, customer_id="customer-even") == [["0"]]
    await bench.run_due(limit=2)
    assert await pages(served, 9, status=SUCCEEDED) == [["1", "0"]]
    assert await pages(served, 3, status=PENDING) == [["5", "4", "3"], ["2"]]
    assert await pages(served, 9, customer_id="nobody") == [[]]
