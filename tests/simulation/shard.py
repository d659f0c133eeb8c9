"""A shard: its volume, which outlives it, and its process with the production code on a store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from typing import Any, Final, Protocol, TypeVar, cast

import grpc

from gateway.change_log import LogState
from gateway.committer import Committer, Waiting
from gateway.elsewhere import Elsewhere, Ledger, LookUpPolicy, OtherShards
from gateway.errors import StoreFailed
from gateway.flusher import OnFlushed
from gateway.health import Health
from gateway.http.access import Access
from gateway.http.message import Request, Response
from gateway.http.operations import OperationHandlers
from gateway.http.payments import PaymentHandlers, PaymentPolicy
from gateway.http.problems import known_problem
from gateway.http.routes import HttpApp
from gateway.http.webhooks import WebhookEndpoint, WebhookHandlers
from gateway.ledger_calls import AskedLedger, LedgerCalls
from gateway.load_shedding import Gate
from gateway.merchants import Merchants
from gateway.metrics import Metrics
from gateway.owners import Owners
from gateway.ring import Ring
from gateway.rpc.shard_service import ShardService
from gateway.snapshots import Keeper
from gateway.store.interface import Delete, DeleteRange, Put
from gateway.store.memory import Disk, MemoryStore
from gateway.store.opening import open_store
from tests.fixtures.shard import FakeHeaders
from tests.simulation.loop import EPOCH_US, Process, VirtualLoop
from tests.simulation.network import Lost, Network, Refused
from tollgate.client_secrets import ClientSecrets
from tollgate.errors import OperationalError, RejectedInput
from tollgate.ids import api_key_hash
from tollgate.ring_file import RingFile
from tollgate.v1.ledger_pb2 import ListMerchantsResponse, Merchant
from tollgate.v1.payment_pb2 import OperationType, Payment
from tollgate.v1.shard_pb2 import GetPaymentRequest
from tollgate.watermark import Watermark, WatermarkWriter
from tollgate.webhooks.simulator import SimulatorWebhooks

PSP: Final = "simulator"
MERCHANTS: Final = ("acme", "bolt")
_MERCHANTS_COPY: Final = ListMerchantsResponse(
    merchants=[
        Merchant(id=name, default_psp=PSP, api_key_hashes=[api_key_hash(f"key-{name}")]) for name in MERCHANTS
    ]
).SerializeToString()
WEBHOOK_SECRET: Final = "whsec_c2ltdWxhdGlvbi1vZi10aGUtcHNw"
_EXPIRES_AFTER_US: Final = 15_000_000  # an outage outlasts it, and what was sent waits in doubt for longer
_RETENTION_US: Final = 30 * 24 * 3600 * 1_000_000
_LOOK_UPS: Final = LookUpPolicy(timeout_s=1.0, in_flight_max=64, refresh_after_s=5.0, shipped_within_s=0.5)
_ANSWER_S: Final = 3.0

T = TypeVar("T")


@dataclass
class Volume:
    """What a killed shard leaves. `fails`: the share of fsyncs that fail; `slow_us`: the most that one takes.

    The secondary that cdc reads sees what was written, synced or not, as it does beside a real shard.
    """

    shard: int
    disk: Disk = field(default_factory=Disk)
    watermark: Watermark | None = None
    fails: float = 0.0
    slow_us: int = 2_000
    on_watermark: Callable[[], None] = lambda: None

    def publish(self, watermark: Watermark) -> None:
        self.watermark = watermark
        self.on_watermark()

    def close(self) -> None:
        """As the writer's."""

    def family(self, name: str) -> dict[bytes, bytes]:
        """As it stands, synced or not."""
        rows = dict(self.disk.synced[name])
        for operations in self.disk.unsynced:
            for operation in operations:
                if operation.family != name:
                    continue
                match operation:
                    case Put(_, key, value):
                        rows[key] = value
                    case Delete(_, key):
                        rows.pop(key, None)
                    case DeleteRange(_, begin, end):
                        for key in [key for key in rows if begin <= key < end]:
                            del rows[key]
        return rows


class _Flusher:
    """An fsync takes its time, and may fail: then some of what it was to sync is there, the rest is not."""

    def __init__(self, volume: Volume, store: MemoryStore, random: Random) -> None:
        self._volume = volume
        self._store = store
        self._random = random

    def flush(self, done: OnFlushed) -> None:
        delay_us = 100 + int(self._random.random() ** 3 * self._volume.slow_us)
        asyncio.get_running_loop().call_later(delay_us / 1e6, self._end, done)

    def _end(self, done: OnFlushed) -> None:
        if self._volume.fails and self._random.random() < self._volume.fails:
            unsynced = len(self._volume.disk.unsynced)
            self._volume.disk.lose_unsynced(int(self._random.random() * (unsynced + 1)))
            done(StoreFailed("A fsync of the store failed: IO error."))
            return
        self._store.flush()
        done(None)


class Aborted(Exception):
    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code


class Context:
    """Of a gRPC call, as far as the services use it."""

    async def abort(self, code: grpc.StatusCode, details: str = "") -> None:
        raise Aborted(code, details)


async def called(
    network: Network,
    to: Callable[[], Process | None],
    act: Callable[[], Awaitable[T]],
    timeout_s: float,
) -> T:
    """A gRPC call as the clients of the parts translate it."""
    try:
        return await network.call(to, act, timeout_s)
    except Aborted as error:
        if error.code is grpc.StatusCode.INVALID_ARGUMENT:
            raise RejectedInput(str(error)) from error
        raise OperationalError(str(error)) from error
    except (Refused, Lost) as error:
        raise OperationalError(f"The call was not answered: {type(error).__name__}.") from error


@lru_cache(64)
def _owners(file: RingFile, own: int) -> Owners:
    """A run is too short to forget a ring in."""
    return Owners(file, own, EPOCH_US, _RETENTION_US)


class _RingNow:
    """Which ring the shard goes by."""

    def __init__(self, own: int, clock: Process) -> None:
        self._own = own
        self._clock = clock
        self.owners = Owners(None, own, clock.now_us(), _RETENTION_US)

    def set(self, file: RingFile) -> None:
        if file.version > self.owners.version:
            self.owners = _owners(file, self._own)


class Others(Ledger, OtherShards, AskedLedger, Protocol):
    """Whom a shard asks."""


class SimShard:
    """One life of a shard. `on_failure` when its store has failed: the process ends for it."""

    def __init__(
        self,
        loop: VirtualLoop,
        random: Random,
        volume: Volume,
        ring: RingFile,
        others: Others,
        skew_us: int,
        store: MemoryStore,
        on_failure: Callable[[SimShard], None],
    ) -> None:
        self.volume = volume
        self.process = loop.process(f"shard-{volume.shard}", skew_us)
        self._random = random
        self._others = others
        self._on_failure = on_failure
        self.store = store
        self.process.run(self._build, ring)

    def _build(self, ring_file: RingFile) -> None:
        volume, clock, metrics = self.volume, self.process, Metrics()
        opened = open_store(self.store, volume.shard, self._random.randbytes, volume.watermark)
        self.health = Health(starting=False)
        ring: Ring[Waiting] = Ring(256, 1_000_000)
        self.committer = Committer(
            store=self.store,
            identity=opened.identity,
            log=opened.log,
            ring=ring,
            flusher=_Flusher(volume, self.store, self._random),
            watermark=cast(WatermarkWriter, volume),
            clock=clock,
            metrics=metrics,
            batch_count_max=64,
            on_failure=self._failed,
        )
        self.service = ShardService(self.committer, self.store, metrics)
        self.ring = _RingNow(volume.shard, clock)
        self.ring.set(ring_file)
        self.elsewhere = Elsewhere(
            ring=self.ring,
            ledger=self._others,
            shards=self._others,
            keep=Keeper(self.committer, clock, _RETENTION_US).keep,
            clock=clock,
            metrics=metrics,
            policy=_LOOK_UPS,
        )
        self.http = self._build_http(metrics, ring)

    def _build_http(self, metrics: Metrics, ring: Ring[Waiting]) -> HttpApp:
        clock = self.process
        merchants = Merchants(PSP, None)
        merchants.load(_MERCHANTS_COPY)
        payments = PaymentHandlers(
            committer=self.committer,
            elsewhere=self.elsewhere,
            merchants=merchants,
            health=self.health,
            clock=clock,
            policy=PaymentPolicy(frozenset({PSP}), _EXPIRES_AFTER_US, ClientSecrets(b"0123456789abcdef" * 2)),
            new_traceparent=lambda _told: "00-" + "1" * 32 + "-" + "2" * 16 + "-01",
        )
        calls = LedgerCalls(self._others, metrics, 64)
        access = Access(payments.authenticate, self.health, None)
        self.operations = OperationHandlers(payments, calls, self.elsewhere, access)
        self.webhooks = WebhookHandlers(
            self.committer, self.health, clock, {PSP: WebhookEndpoint(SimulatorWebhooks([WEBHOOK_SECRET]))}
        )
        gate = Gate(ring, clock, clock.loop.call_soon, turn_ms_max=1_000.0, look_every=8)
        return HttpApp(
            payments.collection_route(self.operations.list_them),
            payments.payment_route(self.operations.change),
            cast(Any, None),
            self.committer.hand_over,
            metrics,
            gate,
            {},
        )

    @property
    def log(self) -> LogState:
        return self.committer.durable

    def _failed(self, error: StoreFailed) -> None:
        self.health.failure = error.message
        self._on_failure(self)

    async def handle(
        self, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes
    ) -> Response:
        return await self.http.handle(Request(method, path, "", FakeHeaders(*headers), body))

    async def operate(
        self, kind: OperationType.ValueType, checkout_id: str, headers: Sequence[tuple[str, str]], body: bytes
    ) -> Response:
        """The cold routes without Starlette's routing."""
        request = Request("POST", f"/v1/payments/{checkout_id}", "", FakeHeaders(*headers), body)
        return await self._told(self.operations._request(kind, request, {"id": checkout_id}))

    async def hear(self, headers: Sequence[tuple[str, str]], body: bytes) -> Response:
        request = Request("POST", f"/v1/webhooks/{PSP}", "", FakeHeaders(*headers), body)
        return await self._told(self.webhooks.receive(request, {"psp": PSP}))

    async def _told(self, handling: Awaitable[Response]) -> Response:
        try:
            return await handling
        except Exception as error:
            problem = known_problem(error)
            if problem is None:
                raise
            return problem.response()

    async def get_payment(self, merchant: str, checkout_id: str) -> Payment | None:
        request = GetPaymentRequest(merchant=merchant, checkout_id=checkout_id)
        answer = await self.service.GetPayment(request, cast(Any, Context()))
        return answer.payment if answer.HasField("payment") else None
