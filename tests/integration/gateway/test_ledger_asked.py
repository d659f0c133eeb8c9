"""What a shard asks of several Ledgers on behalf of clients, over gRPC: any that answers will do."""

from __future__ import annotations

import asyncio

import pytest

from gateway.rpc.ledger import LedgerClient
from tests.fixtures.free_port import free_port
from tests.fixtures.live_shard import live_ledger
from tests.fixtures.shard import MERCHANT
from tollgate.errors import OperationalError, RejectedInput
from tollgate.status import SUCCEEDED
from tollgate.v1.ledger_pb2 import (
    FindOperationRequest,
    ListPaymentsRequest,
    RequestOperationRequest,
    UpdatePaymentRequest,
)
from tollgate.v1.payment_pb2 import OperationType, Payment

ID = "order-0001"
REFUND = RequestOperationRequest(
    merchant=MERCHANT,
    checkout_id=ID,
    type=OperationType.OPERATION_TYPE_REFUND,
    idempotency_key="key-1",
)


async def test_each_question_is_answered_by_the_ledger_that_is_there() -> None:
    with live_ledger() as (address, ledger):
        ledger.payments[MERCHANT, ID] = Payment(
            merchant=MERCHANT, checkout_id=ID, status=SUCCEEDED, version=2, captured_amount=7
        )
        for ask_last in (address, f"127.0.0.1:{free_port()}"):
            client = LedgerClient([f"127.0.0.1:{free_port()}", ask_last, address])
            operation = await client.request_operation(REFUND)
            found = operation.accepted.id or operation.known.id
            asked = FindOperationRequest(merchant=MERCHANT, checkout_id=ID, operation_id=found)
            assert (await client.find_operation(asked)).operation.amount == 7
            changed = await client.update_payment(
                UpdatePaymentRequest(merchant=MERCHANT, checkout_id=ID, version=1)
            )
            assert changed.WhichOneof("answer") == "refusal"
            assert len((await client.list_payments(ListPaymentsRequest(merchant=MERCHANT, limit=1))).payments)
            await client.close()
        assert len(ledger.payments[MERCHANT, ID].operations) == 1


async def test_payments_that_are_looked_for_at_a_time_are_asked_for_together() -> None:
    with live_ledger() as (address, ledger):
        for number in range(0, 200, 2):
            ledger.payments[MERCHANT, f"order-{number}"] = Payment(
                merchant=MERCHANT, checkout_id=f"order-{number}"
            )
        client = LedgerClient([address])
        found = await asyncio.gather(
            *(client.find_payment(MERCHANT, f"order-{number}", 5.0) for number in range(200))
        )
        await client.close()
    assert [payment and payment.checkout_id for payment in found] == [
        None if number % 2 else f"order-{number}" for number in range(200)
    ]
    assert ledger.looked_for == [64, 64, 64, 8]


async def test_a_ledger_that_is_down_is_told_from_one_that_is_asked_nonsense() -> None:
    with live_ledger() as (address, ledger):
        client = LedgerClient([address])
        with pytest.raises(RejectedInput, match="can't make sense"):
            await client.request_operation(RequestOperationRequest(merchant=MERCHANT, checkout_id=ID))
        ledger.down = True
        with pytest.raises(OperationalError, match="No Ledger answered"):
            await client.request_operation(REFUND)
        await client.close()
