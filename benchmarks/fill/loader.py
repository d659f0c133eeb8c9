"""Fills a shard's store through the shard itself: nothing in it tells it from one that clients filled.

Payment 0 is POSTed to the shard in this process; the others are made after it, each admitted with contents of
its own. All go through the production committer, an fsync each batch, as acceptances; then they are
acknowledged, settled by a status a while later, and their changes pruned by the shard's own retention. Only
HTTP is left out.

What survives a crash is what a shard keeps: the sequence says how many payments there are, so a fill that
was cut short goes on where it stood.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson
from pydantic import SecretStr

from benchmarks.fill.ids import checkout_id
from gateway.admission import Admitted, admit
from gateway.bootstrap import Shard, build
from gateway.errors import StoreBusy
from gateway.http.message import Request
from gateway.planner import Acceptance, Acknowledgement, Entry, Result, Snapshot, StatusBatch
from gateway.settings import DevelopmentSettings, GatewaySettings, RetentionSettings, ShardSettings
from tollgate.clock import SystemClock
from tollgate.errors import OperationalError, TollgateError
from tollgate.ids import new_api_key, payment_key
from tollgate.local.stack_json import MERCHANT
from tollgate.telemetry import traceparent_or_new
from tollgate.v1.payment_pb2 import Payment, Status

WINDOW: Final = 1_024
# A payment that settles does so seconds after it came: by then its first version has left the memtable.
SETTLE_LAG: Final = 50 * WINDOW
_RETENTION_EVERY: Final = 64
_BODY: Final = Path(__file__).resolve().parents[1] / "loadgen" / "payment.json"
_BUSY_PAUSE_S: Final = 0.01
_STOP_S: Final = 10.0


@dataclass(frozen=True)
class Wanted:
    """`payments` in all. The changes of the last `unshipped` are not acknowledged, and those not settled."""

    payments: int
    unshipped: int
    seed: int
    settled: bool = True
    shipped_bytes_max: int = 1024 * 1024 * 1024  # as the shard's own default

    @property
    def shipped(self) -> int:
        return self.payments - self.unshipped


@dataclass(slots=True)
class Filled:
    """What a fill came to. `refused` counts entries that RocksDB refused in a stall; they were sent again."""

    payments: int = 0
    refused: int = 0


async def fill(
    data_dir: Path, shard_id: int, wanted: Wanted, progress: Callable[[int], None] = lambda _count: None
) -> Filled:
    """Fills up to `wanted`. Raises OperationalError when the store holds something else; TollgateError."""
    shard = build(_settings(data_dir, shard_id, wanted), on_failure=lambda _reason: None)
    try:
        return await _Fill(shard, wanted, progress).run()
    finally:
        if shard.committer.failure is None and shard.flusher.close(_STOP_S):
            shard.store.close()
        shard.watermark.close()


class _Fill:
    def __init__(self, shard: Shard, wanted: Wanted, progress: Callable[[int], None]) -> None:
        self._shard = shard
        self._wanted = wanted
        self._progress = progress
        self._filled = Filled()
        self._clock = SystemClock()

    async def run(self) -> Filled:
        wanted, committer = self._wanted, self._shard.committer
        sample = await self._sample()
        present = committer.durable.last
        if present > wanted.payments:
            raise OperationalError(
                f"The store holds {present} payments already, more than the {wanted.payments} asked for. "
                "Name a new folder."
            )
        settled = max(0, present - SETTLE_LAG - WINDOW)
        for number, first in enumerate(range(present, wanted.payments, WINDOW)):
            through = min(first + WINDOW, wanted.payments)
            await self._commit([self._acceptance(sample, index) for index in range(first, through)])
            settled = await self._follow(settled, through - SETTLE_LAG, min(through, wanted.shipped))
            if number % _RETENTION_EVERY == 0:
                await self._shard.retention.tick()
            self._progress(through)
        await self._follow(settled, wanted.shipped, wanted.shipped)
        await self._shard.retention.tick()
        self._filled.payments = committer.durable.last
        return self._filled

    async def _sample(self) -> Payment:
        """Payment 0, sent as a client sends it: accepted now, or found as it was the first time."""
        name = checkout_id(self._wanted.seed, 0)
        key = payment_key(MERCHANT, name)
        if self._shard.committer.durable.last == 0:
            development = self._shard.settings.development
            assert development is not None
            headers = {
                "authorization": f"Bearer {development.api_key.get_secret_value()}",
                "content-type": "application/json",
                "x-payment-checkout-id": name,
            }
            request = Request("POST", "/v1/payments", "", _Headers(headers), _BODY.read_bytes())
            response = await self._shard.http.handle(request)
            if response.status != 202:
                raise OperationalError(f"The first payment was not accepted: {orjson.loads(response.body)}.")
        stored = self._shard.committer.read(key)
        if stored is None:
            raise OperationalError(
                f"The store was not filled with seed {self._wanted.seed}: it has no payment {name}. "
                "Name the seed that it was filled with, or a new folder."
            )
        return Payment.FromString(stored)

    async def _follow(self, settled: int, settle_to: int, acknowledged: int) -> int:
        """Acknowledges up to `acknowledged` payments and settles those in [settled, settle_to)."""
        identity = self._shard.committer.identity
        settle_to = min(settle_to, acknowledged)
        entries: list[Entry] = []
        if acknowledged > self._shard.committer.durable.acknowledged:
            entries.append(Acknowledgement(identity.incarnation, identity.epoch, acknowledged))
        if self._wanted.settled:
            for first in range(settled, settle_to, WINDOW):
                indices = range(first, min(first + WINDOW, settle_to))
                entries.append(StatusBatch(tuple(self._snapshot(index) for index in indices)))
        if entries:
            await self._commit(entries)
        return max(settled, settle_to)

    def _acceptance(self, sample: Payment, index: int) -> Acceptance:
        """What POST makes of a body whose contents are this payment's own: equal ones would compress away."""
        seed = self._wanted.seed
        name, method, customer, payee = (checkout_id(seed ^ part, index) for part in range(4))
        metadata = {entry.key: entry.value for entry in sample.metadata} | {"payee_id": payee}
        body: dict[str, object] = {"amount": sample.amount, "currency": sample.currency}
        body |= {"payment_method": method, "customer_id": customer, "metadata": metadata}
        admitted = admit(
            orjson.dumps(body | {"customer_id": customer, "metadata": metadata}), name, frozenset()
        )
        assert isinstance(admitted, Admitted), admitted
        now_us = self._clock.now_us()
        payment = Payment()
        payment.CopyFrom(sample)
        payment.checkout_id, payment.payment_method, payment.customer_id = name, method, customer
        for entry in payment.metadata:
            entry.value = metadata[entry.key]
        payment.fingerprint = admitted.fingerprint
        payment.traceparent = traceparent_or_new(None)
        payment.created_at_us = payment.updated_at_us = now_us
        payment.expires_at_us = now_us + sample.expires_at_us - sample.created_at_us
        key = payment_key(payment.merchant, name)
        return Acceptance(key, payment.SerializeToString(), payment.fingerprint, payment.traceparent)

    def _snapshot(self, index: int) -> Snapshot:
        """As the processor leaves a payment that went well: pending, processing, succeeded."""
        key = payment_key(MERCHANT, checkout_id(self._wanted.seed, index))
        stored = self._shard.committer.read(key)
        if stored is None:
            raise OperationalError(f"Payment {key} was accepted and is not there.")
        payment = Payment.FromString(stored)
        payment.status, payment.version = Status.STATUS_SUCCEEDED, 2
        payment.captured_amount = payment.amount
        payment.psp_reference = f"sim_{payment.checkout_id}"
        payment.updated_at_us = self._clock.now_us()
        return Snapshot(key, payment.version, payment.SerializeToString())

    async def _commit(self, entries: Sequence[Entry]) -> None:
        """Commits all of them, again where RocksDB was behind. Raises any other error that one came to."""
        pending = list(entries)
        while pending:
            results = await asyncio.gather(*map(self._shard.committer.submit, pending))
            refused = list(_refused(pending, results))
            if refused:
                self._filled.refused += len(refused)
                await asyncio.sleep(_BUSY_PAUSE_S)
            pending = refused


def _refused(entries: Sequence[Entry], results: Sequence[Result]) -> Iterator[Entry]:
    for entry, result in zip(entries, results, strict=True):
        if isinstance(result, StoreBusy):
            yield entry
        elif isinstance(result, TollgateError):
            raise result


class _Headers(dict[str, str]):
    def get_all(self, name: str) -> list[str]:
        return [self[name]] if name in self else []


def _settings(data_dir: Path, shard_id: int, wanted: Wanted) -> GatewaySettings:
    """Nothing listens: the addresses are there because a shard has some."""
    return GatewaySettings(
        shard=ShardSettings(id=shard_id, data_dir=data_dir, http="127.0.0.1:1", grpc="127.0.0.1:1"),
        client_secret_key=SecretStr(new_api_key()),
        development=DevelopmentSettings(api_key=SecretStr(new_api_key()), merchant=MERCHANT),
        retention=RetentionSettings(changes_bytes_max=wanted.shipped_bytes_max),
    )
