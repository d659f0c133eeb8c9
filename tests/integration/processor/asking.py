"""Asking the Ledger for operations of one payment, `checkout-0001`, and looking at what became of it."""

from __future__ import annotations

from itertools import count

from processor.operation_request import Accepted, Known, RefusalCode, Refused, Wanted
from processor.psp.interface import OperationKind
from processor.storage.database import Pool
from processor.storage.payments import find_payments
from processor.storage.requests import request_operation
from tests.fixtures.changes import accepted_payment, change_record
from tests.integration.processor.conftest import Bench
from tollgate.v1.payment_pb2 import Capture, Payment

CAPTURE, CANCEL, REFUND = OperationKind.CAPTURE, OperationKind.CANCEL, OperationKind.REFUND
HOUR_S = 3600.0
_IDS = count(1)


async def find_payment(pool: Pool, merchant: str, checkout_id: str) -> Payment | None:
    return next(iter(await find_payments(pool, [(merchant, checkout_id)])), None)


async def ask_for(
    bench: Bench, kind: OperationKind, amount: int | None = None, key: str | None = None, reason: str = ""
) -> Accepted | Known | Refused:
    number = next(_IDS)
    wanted = Wanted(kind, amount, reason, key or f"key-{number}")
    return await request_operation(
        bench.pool, "acme", "checkout-0001", wanted, f"op_{number}", bench.clock.now_us()
    )


async def accepted(bench: Bench, kind: OperationKind, amount: int | None = None) -> str:
    answer = await ask_for(bench, kind, amount)
    assert isinstance(answer, Accepted)
    return answer.operation.id


async def refusal(bench: Bench, kind: OperationKind, amount: int | None = None) -> RefusalCode:
    answer = await ask_for(bench, kind, amount)
    assert isinstance(answer, Refused)
    assert answer.message
    return answer.code


async def paid(bench: Bench, capture: Capture.ValueType = Capture.CAPTURE_AUTOMATIC) -> None:
    await bench.take_in(change_record(accepted_payment(capture=capture)))
    await drain(bench)


async def authorized(bench: Bench) -> None:
    await paid(bench, Capture.CAPTURE_MANUAL)


async def drain(bench: Bench) -> None:
    while await bench.run_due():
        pass


async def standing(bench: Bench) -> tuple[str, int, int]:
    row = await bench.payment()
    return row["status"], row["captured_amount"], row["refunded_amount"]


async def events(bench: Bench) -> list[str]:
    rows = await bench.pool.fetch("SELECT version, event_type, snapshot FROM outbox ORDER BY id")
    assert [row["version"] for row in rows] == list(range(1, len(rows) + 1))
    return [row["event_type"].removeprefix("tollgate.") for row in rows]
