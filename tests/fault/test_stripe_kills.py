"""`python -m processor` killed -9 around each call to localstripe, which keeps no idempotency keys: before
the call goes out, when it was sent on, and when its answer is there; and killed once more around what it
calls first after its start, to find out. One PaymentIntent each, and every effect once.

The default run has four of these deaths; `make stripe-crashes` dies at every moment of every call.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import grpc
import pytest
from confluent_kafka import Producer

from tests.fault.effects.plan import Moment, Step, When
from tests.fault.effects.psp_wire import PspWire
from tests.fault.effects.trap import Trap
from tests.fixtures.changes import accepted_payment, change_record
from tests.fixtures.localstripe import API_KEY, Localstripe, shared_localstripe
from tests.fixtures.processor_process import RunningProcessor, processor_on
from tests.fixtures.stripe_front import APPROVES, StripeFront, effects_of, intents_of
from tollgate.v1.ledger_pb2 import RequestOperationRequest
from tollgate.v1.ledger_pb2_grpc import LedgerStub
from tollgate.v1.payment_pb2 import Capture, OperationType

MERCHANT: Final = "acme"
CALLS: Final = ("create", "confirm", "capture", "refund")  # as a payment makes them that nothing happens to
AMOUNT, CAPTURED, REFUNDED = 1234, 1000, 400
EFFECTS: Final = [("authorization", AMOUNT), ("capture", CAPTURED), ("refund", REFUNDED)]
_TIMEOUT_S: Final = 1
_DEADLINE_S: Final = 60.0
_POLL_S: Final = 0.02
_NOT_BROUGHT_ABOUT: Final = "SELECT count(*) FROM operations WHERE parked_reason IS NOT NULL"


class Death(NamedTuple):
    """Around which call of the payment, and around the first one after the start, if there too."""

    call: str
    when: When
    again: When | None = None

    def __str__(self) -> str:
        return f"{self.when} {self.call}" + (f", then {self.again} what follows" if self.again else "")


EVERY: Final = [Death(call, when, again) for call in CALLS for when in When for again in (None, *When)]
DEFAULT: Final = [
    Death("create", When.AFTER, When.AFTER),
    Death("confirm", When.DURING),
    Death("capture", When.BEFORE),
    Death("refund", When.AFTER),
]
PLAYED: Final = EVERY if "STRIPE_CRASH_SEEDS" in os.environ else DEFAULT


@dataclass
class Rig:
    processor: RunningProcessor
    postgres: asyncpg.Connection[asyncpg.Record]
    producer: Producer
    trap: Trap
    behind: Localstripe

    async def play(self, death: Death) -> None:
        """One payment's life: authorized, captured in part, refunded in part; and the death in it."""
        checkout_id = f"stripe-{uuid4().hex[:12]}"
        deaths = [death.when, *([death.again] if death.again else [])]
        self._arm_at(death, "create", "confirm", deaths=deaths)
        await asyncio.to_thread(self._ship, checkout_id)
        await self._until(checkout_id, ("authorized", 0, 0))
        self._arm_at(death, "capture", deaths=deaths)
        await self._ask(checkout_id, OperationType.OPERATION_TYPE_CAPTURE, CAPTURED)
        await self._until(checkout_id, ("succeeded", CAPTURED, 0))
        self._arm_at(death, "refund", deaths=deaths)
        await self._ask(checkout_id, OperationType.OPERATION_TYPE_REFUND, REFUNDED)
        await self._until(checkout_id, ("partially_refunded", CAPTURED, REFUNDED))
        await self.trap.struck()
        assert not deaths, f"{death}: nothing was called after it"
        name = f"{MERCHANT}/{checkout_id}"
        assert len(await intents_of(self.behind, name)) == 1, death
        assert sorted(await effects_of(self.behind, name)) == EFFECTS, death
        assert await self.postgres.fetchval(_NOT_BROUGHT_ABOUT) == 0, death

    def _arm_at(self, death: Death, *calls: str, deaths: list[When]) -> None:
        if death.call in calls:
            self._arm(deaths, calls.index(death.call))

    def _arm(self, deaths: list[When], passing: int) -> None:
        async def kill(_processor: int) -> bool:
            self.processor.kill()
            deaths.pop(0)
            if deaths:
                self._arm(deaths, 0)
            self.processor.start()
            return False

        self.trap.set(Moment(Step.CALL, deaths[0]), passing, kill)

    def _ship(self, checkout_id: str) -> None:
        payment = accepted_payment(
            checkout_id,
            merchant=MERCHANT,
            amount=AMOUNT,
            capture=Capture.CAPTURE_MANUAL,
            now_us=time.time_ns() // 1000,
        )
        payment.psp, payment.payment_method = "stripe", APPROVES
        record = change_record(payment)
        self.producer.produce(record.topic, key=record.key, value=record.value, headers=list(record.headers))
        assert self.producer.flush(10) == 0

    async def _ask(self, checkout_id: str, kind: OperationType.ValueType, amount: int) -> None:
        """Of a processor that may be on its way back."""
        request = RequestOperationRequest(
            merchant=MERCHANT,
            checkout_id=checkout_id,
            type=kind,
            amount=amount,
            idempotency_key=f"key-{kind}",
        )
        deadline = time.monotonic() + _DEADLINE_S
        answer = None
        async with grpc.aio.insecure_channel(
            self.processor.environment["TOLLGATE_PROCESSOR__GRPC"]
        ) as channel:
            while answer is None:
                assert time.monotonic() < deadline, "nobody decides"
                with suppress(grpc.aio.AioRpcError):
                    answer = await LedgerStub(channel).RequestOperation(
                        request, timeout=5, wait_for_ready=True
                    )
        assert answer.WhichOneof("answer") in ("accepted", "known"), answer

    async def _until(self, checkout_id: str, wanted: tuple[str, int, int]) -> None:
        deadline, found = time.monotonic() + _DEADLINE_S, None
        while found != wanted:
            assert time.monotonic() < deadline, f"{checkout_id} is {found} in place of {wanted}"
            row = await self.postgres.fetchrow(
                "SELECT status, captured_amount, refunded_amount FROM payments WHERE checkout_id = $1",
                checkout_id,
            )
            found = tuple(row) if row is not None else None
            await asyncio.sleep(_POLL_S)


@asynccontextmanager
async def rig_on(folder: Path, kafka: str, dsn: str) -> AsyncIterator[Rig]:
    behind, trap = Localstripe(shared_localstripe()), Trap()
    await behind.clear()
    front = StripeFront(behind)
    await front.start()
    wire = PspWire(0, urlsplit(front.url).port or 0, trap)
    await wire.open()
    settings = {
        "TOLLGATE_PSP__STRIPE__API_KEY": API_KEY,
        "TOLLGATE_PSP__STRIPE__URL": wire.url,
        "TOLLGATE_PSP__STRIPE__TIMEOUT_S": str(_TIMEOUT_S),
        "TOLLGATE_PSP__STRIPE__RETURN_URL": "https://shop.example/back",
        # The killed one's partitions are its successor's at once.
        "TOLLGATE_PROCESSOR__INSTANCE": f"stripe-{uuid4().hex[:8]}",
    }
    producer = Producer({"bootstrap.servers": kafka, "partitioner": "murmur2_random"})
    nobody = "http://127.0.0.1:1"
    try:
        async with processor_on(folder, dsn, kafka, nobody, **settings) as processor:
            await processor.ready()
            postgres = await asyncpg.connect(dsn, timeout=5)
            try:
                yield Rig(processor, postgres, producer, trap, behind)
            finally:
                await postgres.close()
    finally:
        await wire.close()
        await front.stop()
        await behind.clear()


@pytest.mark.fault
@pytest.mark.timeout(60 + 30 * len(PLAYED))
async def test_a_processor_killed_around_each_call_to_a_stripe_without_keys_makes_everything_once(
    tmp_path: Path, kafka_bootstrap: str, postgres_dsn: str
) -> None:
    async with rig_on(tmp_path, kafka_bootstrap, postgres_dsn) as rig:
        for death in PLAYED:
            await rig.play(death)
