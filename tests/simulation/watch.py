"""What is watched while the world runs: promises that one moment can break.

A broken promise is noted where it is seen and raised after the step: inside, production code might catch it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, Final

import structlog

from gateway.store.interface import Operation, Put
from gateway.store.memory import MemoryStore
from processor.psp.interface import PspRequest
from tests.simulation.kafka import Broker
from tests.simulation.psp import REPLAYED_FOR_S
from tests.simulation.shard import Volume
from tollgate.local.simulator.charges import Effect
from tollgate.shard_layout import (
    CHANGES,
    META,
    META_ACKNOWLEDGED,
    META_PRUNED,
    PAYMENTS,
    decode_u64,
    encode_u64,
)
from tollgate.status import TERMINAL, is_legal
from tollgate.v1.payment_pb2 import Payment

# What production says only when something is wrong that no fault of the world explains.
_ALARMS: Final = frozenset(
    {
        "a handler failed",
        "anomaly",
        "batch_broke_off",
        "change_refused",
        "operation_broke_off",
        "outcome_refused",
        "request_refused",
        "status_record_buried",
        "tailer_halted",
        "webhook_anomaly",
        "webhook_refused",
        "webhook_unmatched",
        "webhook_unreadable",
    }
)
_EXECUTES: Final = frozenset({"charge", "authorization"})


class Broken(Exception):
    """`rule` is the promise, `what` how it was broken."""

    def __init__(self, rule: str, what: str) -> None:
        super().__init__(f"{rule}: {what}")
        self.rule = rule


class Watch:
    def __init__(
        self,
        now_us: Callable[[], int],
        per_second: float | None,
        durable: Callable[[tuple[str, str]], int | None],
    ) -> None:
        """`durable`: the highest version of a payment that is on a disk or in Postgres."""
        self._now_us = now_us
        self._durable = durable
        self._per_second = per_second
        self.broken: list[Broken] = []
        self.parked: dict[tuple[str, str, str], str] = {}
        self._effects: dict[str, str] = {}
        self._executed: dict[tuple[str, str], str] = {}
        self._sent: dict[str, tuple[bytes, int]] = {}
        self._calls_us: deque[int] = deque()
        self._checked: dict[int, tuple[bytes, int]] = {}

    def says(self, rule: str, what: str) -> None:
        self.broken.append(Broken(rule, what))

    def check(self) -> None:
        if self.broken:
            raise self.broken[0]

    # The PSP

    def effect(self, effect: Effect) -> None:
        if effect.idempotency_key in self._effects:
            self.says("I2", f"two effects under key {effect.idempotency_key[:8]} of {effect.checkout_id}")
        self._effects[effect.idempotency_key] = effect.id
        if effect.type in _EXECUTES:
            about = effect.merchant, effect.checkout_id
            if about in self._executed:
                self.says("I2", f"{effect.checkout_id} was executed twice")
            self._executed[about] = effect.id

    def call(self, request: PspRequest) -> None:
        now_us = self._now_us()
        if self._per_second is not None:
            self._calls_us.append(now_us)
            if len(self._calls_us) > self._per_second and now_us - self._calls_us.popleft() < 1_000_000:
                self.says("budget", f"more than {self._per_second:g} calls in a second")
        if request.method == "GET":
            return
        body, first_us = self._sent.setdefault(request.idempotency_key, (request.body, now_us))
        if body != request.body:
            self.says("I2", f"key {request.idempotency_key[:8]} was sent with other bytes")
        # The processor's clock and its first send's may be a second apart. What was always refused without
        # effect may be sent at any time.
        is_late = now_us - first_us > (REPLAYED_FOR_S + 3) * 1e6
        if is_late and request.idempotency_key in self._effects:
            self.says("I2", f"key {request.idempotency_key[:8]} was sent again past its retention")

    # The shards

    def told(self, key: tuple[str, str], version: int) -> None:
        """In an answer, as it goes out: no power cut anywhere may take it back."""
        durable = self._durable(key)
        if durable is None or durable < version:
            self.says("I1", f"{key[1]} is told at version {version}, durable is {durable}")

    def store_of(self, volume: Volume) -> MemoryStore:
        return _WatchedStore(volume, self)

    def acknowledged(self, volume: Volume, broker: Broker) -> None:
        """I4: what the shard knows as shipped, Kafka has."""
        rows = volume.disk.synced
        raw = rows[META].get(META_ACKNOWLEDGED)
        if raw is None:
            return
        acknowledged, checked = decode_u64(raw), self._checked.get(volume.shard, (b"", 0))[1]
        if acknowledged < checked:
            self.says("I4", f"shard {volume.shard}'s cursor went back from {checked} to {acknowledged}")
        for sequence in range(checked + 1, acknowledged + 1):
            value = rows[CHANGES].get(encode_u64(sequence))
            if value is None and sequence > decode_u64(rows[META][META_PRUNED]):
                self.says("I3", f"shard {volume.shard} has no change {sequence}")
            elif value is not None and value not in broker.changes:
                self.says("I4", f"shard {volume.shard} acknowledged {sequence}, which Kafka does not have")
        self._checked[volume.shard] = (raw, acknowledged)

    # What production itself calls wrong

    def hear(
        self, _logger: Any, _name: str, event: MutableMapping[str, Any]
    ) -> Mapping[str, Any] | str | bytes | tuple[Any, ...]:
        name = str(event.get("event"))
        if name in _ALARMS:
            about = {key: value for key, value in sorted(event.items()) if key not in ("event", "exc_info")}
            error = event.get("exc_info")
            self.says("alarm", f"{name} {about} {error!r}" if error else f"{name} {about}")
        elif name == "operation_parked":
            key = str(event["merchant"]), str(event["checkout_id"]), str(event["operation_id"])
            self.parked[key] = str(event["detail"])
            if "too old" not in self.parked[key]:
                self.says("alarm", f"{'/'.join(key)} was parked: {self.parked[key]}")
        raise structlog.DropEvent


class _WatchedStore(MemoryStore):
    """I3 and I5 at the moment of each write."""

    def __init__(self, volume: Volume, watch: Watch) -> None:
        super().__init__(volume.disk)
        self._watch = watch
        self._shard = volume.shard
        last = max(self._tables[CHANGES], default=None)
        self._last = None if last is None else decode_u64(last)

    def write(self, operations: Sequence[Operation]) -> None:
        batch: dict[bytes, bytes] = {}  # what earlier entries of the same make of a payment
        for operation in operations:
            if isinstance(operation, Put) and operation.family == CHANGES:
                sequence = decode_u64(operation.key)
                if sequence != (self._last or 0) + 1:
                    self._watch.says("I3", f"shard {self._shard}: {sequence} follows {self._last}")
                self._last = sequence
            elif isinstance(operation, Put) and operation.family == PAYMENTS:
                self._check(operation, batch.get(operation.key))
                batch[operation.key] = operation.value
        super().write(operations)

    def _check(self, operation: Put, earlier: bytes | None) -> None:
        stored = earlier or self._tables[PAYMENTS].get(operation.key)
        if stored is None or not operation.value:
            return
        before, after = Payment.FromString(stored), Payment.FromString(operation.value)
        name = operation.key.decode()
        if after.version <= before.version:
            self._watch.says("I5", f"{name} goes from version {before.version} to {after.version}")
        if before.status in TERMINAL and after.status != before.status:
            same = after.fingerprint == before.fingerprint
            self._watch.says("I5", f"{name} leaves a terminal status, {'same' if same else 'other'} content")
        follows = before.version and after.version == before.version + 1
        if follows and after.status != before.status and not is_legal(before.status, after.status):
            self._watch.says("I5", f"{name}: {after.status} may not follow {before.status}")
