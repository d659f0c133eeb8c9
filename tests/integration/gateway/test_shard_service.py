"""The Shard service over real gRPC, on a real RocksDB."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc import aio

from gateway.bootstrap import build_committer, build_replication
from gateway.committer import Committer
from gateway.flusher import ThreadFlusher
from gateway.metrics import Metrics
from gateway.planner import Acceptance, Pruning
from gateway.rpc.server import start_rpc
from gateway.rpc.shard_service import ShardService
from gateway.settings import CommitSettings
from gateway.store.opening import open_store
from gateway.store.rocks import RocksStore
from tests.fixtures.free_port import free_port
from tests.fixtures.shard import shard_settings
from tollgate.clock import SystemClock
from tollgate.ids import payment_key
from tollgate.v1.change_pb2 import Change
from tollgate.v1.payment_pb2 import Capture, Payment, Status
from tollgate.v1.shard_pb2 import (
    AcknowledgeChangesRequest,
    ApplyStatusRequest,
    GetPaymentRequest,
    ReadChangesRequest,
    StatusUpdate,
)
from tollgate.v1.shard_pb2_grpc import ShardStub
from tollgate.watermark import WatermarkWriter

if TYPE_CHECKING:
    from tollgate.v1.shard_pb2_grpc import ShardAsyncStub


@dataclass
class Service:
    stub: ShardAsyncStub
    committer: Committer

    async def accept(self, *checkout_ids: str, description: str = "") -> None:
        waiting = []
        for checkout_id in checkout_ids:
            accepted = snapshot(checkout_id, 0, Status.STATUS_PENDING)
            accepted.description = description
            entry = Acceptance(payment_key("acme", checkout_id), accepted.SerializeToString(), b"f", "")
            waiting.append(self.committer.submit(entry))
        await asyncio.gather(*waiting)

    async def acknowledge(self, sequence: int) -> int:
        _, incarnation, epoch = self.committer.identity
        request = AcknowledgeChangesRequest(incarnation=incarnation, epoch=epoch, sequence=sequence)
        return (await self.stub.AcknowledgeChanges(request)).acknowledged

    async def read(self, first: int, limit: int = 10_000) -> list[int]:
        answer = await self.stub.ReadChanges(ReadChangesRequest(from_sequence=first, limit=limit))
        return [Change.FromString(raw).sequence for raw in answer.changes]


def snapshot(checkout_id: str, version: int, status: Status.ValueType) -> Payment:
    return Payment(
        merchant="acme",
        checkout_id=checkout_id,
        version=version,
        status=status,
        capture=Capture.CAPTURE_AUTOMATIC,
        fingerprint=b"f",
    )


@pytest.fixture(params=["durable"])
async def service(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Service]:
    settings = shard_settings(tmp_path, commit=CommitSettings(ack=request.param))
    store = RocksStore(tmp_path / "db")
    opened = open_store(store, 3, lambda count: b"\7" * count)
    flusher = ThreadFlusher(store, asyncio.get_running_loop())
    watermark = WatermarkWriter(tmp_path / "watermark")
    metrics = Metrics()
    committer = build_committer(
        settings, store, opened, flusher, watermark, SystemClock(), metrics, lambda _: None
    )
    replication = build_replication(settings, committer, SystemClock(), metrics)
    address = f"127.0.0.1:{free_port()}"
    server = await start_rpc(ShardService(committer, store, metrics, replication), address)
    async with aio.insecure_channel(address) as channel:
        yield Service(ShardStub(channel), committer)
    await server.stop(None)
    assert flusher.close(5)
    store.close()


async def assert_refused(call: aio.UnaryUnaryCall[Any, Any], code: grpc.StatusCode) -> None:
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is code


async def test_a_status_is_applied_when_it_is_news_and_stored_when_it_is_unknown(service: Service) -> None:
    await service.accept("order-0001")
    updates = [
        snapshot("order-0001", 1, Status.STATUS_PROCESSING),
        snapshot("order-0001", 2, Status.STATUS_SUCCEEDED),
        snapshot("order-0001", 1, Status.STATUS_PROCESSING),
        snapshot("order-0009", 4, Status.STATUS_FAILED),
    ]
    request = ApplyStatusRequest(updates=[StatusUpdate(payment=payment) for payment in updates])
    answer = await service.stub.ApplyStatus(request)
    assert (answer.applied, answer.ignored) == (3, 1)
    again = await service.stub.ApplyStatus(request)
    assert (again.applied, again.ignored) == (0, 4)
    for checkout_id, version in (("order-0001", 2), ("order-0009", 4)):
        found = await service.stub.GetPayment(GetPaymentRequest(merchant="acme", checkout_id=checkout_id))
        assert found.payment.version == version
    assert service.committer.durable.last == 1, "a status writes no change"


@pytest.mark.parametrize("wrong", ["merchant", "checkout_id", "version", "status", "capture"])
async def test_a_snapshot_that_no_payment_can_have_is_refused_with_its_call(
    service: Service, wrong: str
) -> None:
    sound, poison = (snapshot(f"order-000{i}", 1, Status.STATUS_PROCESSING) for i in (1, 2))
    poison.ClearField(wrong)  # type: ignore[arg-type]
    request = ApplyStatusRequest(updates=[StatusUpdate(payment=payment) for payment in (sound, poison)])
    await assert_refused(service.stub.ApplyStatus(request), grpc.StatusCode.INVALID_ARGUMENT)
    for checkout_id in ("order-0001", "order-0002"):
        found = await service.stub.GetPayment(GetPaymentRequest(merchant="acme", checkout_id=checkout_id))
        assert not found.HasField("payment"), "nothing of the call was applied"


async def test_acknowledgements_only_rise_and_never_pass_what_is_durable(service: Service) -> None:
    await service.accept("order-0001", "order-0002", "order-0003")
    assert await service.acknowledge(2) == 2
    assert await service.acknowledge(1) == 2
    _, incarnation, epoch = service.committer.identity
    for refused in (
        AcknowledgeChangesRequest(incarnation=incarnation, epoch=epoch, sequence=4),  # beyond what is durable
        AcknowledgeChangesRequest(incarnation=b"\1" * 16, epoch=epoch, sequence=3),  # another store
        AcknowledgeChangesRequest(incarnation=incarnation, epoch=epoch - 1, sequence=3),  # an earlier opening
    ):
        await assert_refused(service.stub.AcknowledgeChanges(refused), grpc.StatusCode.FAILED_PRECONDITION)
    assert service.committer.durable.acknowledged == 2


@pytest.mark.parametrize("service", ["replicated"], indirect=True)
async def test_with_ack_replicated_an_acknowledgement_is_awaited_and_opens_the_payment_to_others(
    service: Service,
) -> None:
    await service.accept("order-0001")
    question = GetPaymentRequest(merchant="acme", checkout_id="order-0001")
    await assert_refused(service.stub.GetPayment(question), grpc.StatusCode.UNAVAILABLE)
    _, incarnation, epoch = service.committer.identity
    earlier = AcknowledgeChangesRequest(incarnation=incarnation, epoch=epoch - 1, sequence=1)
    await assert_refused(service.stub.AcknowledgeChanges(earlier), grpc.StatusCode.FAILED_PRECONDITION)
    await assert_refused(service.stub.GetPayment(question), grpc.StatusCode.UNAVAILABLE)
    proof = AcknowledgeChangesRequest(incarnation=incarnation, epoch=epoch, sequence=1)
    answer = await service.stub.AcknowledgeChanges(proof)
    assert (answer.awaited, answer.acknowledged) == (True, 0), "it counts before it is stored"
    assert (await service.stub.GetPayment(question)).payment.checkout_id == "order-0001"


async def test_changes_are_read_contiguous_from_where_they_were_asked_for(service: Service) -> None:
    await service.accept(*(f"order-{n:04}" for n in range(1, 1201)))
    assert await service.read(1) == list(range(1, 1201))
    assert await service.read(700, 5) == [700, 701, 702, 703, 704]
    assert await service.read(1200) == [1200]
    assert await service.read(1201) == []
    assert await service.acknowledge(600) == 600
    await service.committer.commit(Pruning(500))
    assert await service.read(500) == [], "what may be gone is not skipped"
    assert await service.read(501, 2) == [501, 502]
    answer = await service.stub.ReadChanges(ReadChangesRequest(from_sequence=501, limit=0))
    assert (answer.durable_sequence, answer.acknowledged_sequence, answer.pruned_sequence) == (1200, 600, 500)
    assert (answer.incarnation, answer.epoch) == service.committer.identity[1:]


async def test_an_answer_fits_into_a_message(service: Service) -> None:
    for start in range(1, 241, 40):
        await service.accept(*(f"order-{n:04}" for n in range(start, start + 40)), description="é" * 15_000)
    read = await service.read(1)
    assert read == list(range(1, len(read) + 1))
    assert 50 < len(read) < 240
    assert await service.read(read[-1] + 1)
