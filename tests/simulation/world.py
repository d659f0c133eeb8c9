"""The whole of it in one process: shards with their cdc, Kafka, processors, Postgres, the PSP and clients.

Only what touches a machine is simulated. What decides is production code: admission, planner, committer and
handlers of the gateway; tailer, runner, acknowledger and status feed; intake, dispatchers, pipeline,
committer, inbox and relay, the Ledger, all of processor/storage but its SQL; the simulator's own book.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Final

import structlog

from tests.simulation.asked import Asked, address_of
from tests.simulation.cdc import Sight, SimCdc
from tests.simulation.clients import Clients
from tests.simulation.kafka import Broker
from tests.simulation.loop import VirtualLoop
from tests.simulation.network import Network
from tests.simulation.postgres.of_sessions import statements
from tests.simulation.postgres.server import Server
from tests.simulation.processor import Outside, SimProcessor
from tests.simulation.psp import Psp, SimulatedPsp
from tests.simulation.shard import SimShard, Volume
from tests.simulation.trace import Trace
from tests.simulation.watch import Watch
from tollgate.errors import CorruptionError
from tollgate.ids import payment_key
from tollgate.ring_file import FormerRing, RingFile, ShardEntry
from tollgate.shard_layout import PAYMENTS
from tollgate.v1.payment_pb2 import Payment

_RESTART_US: Final = 300_000
_RING_US: Final = 200_000
_EXPIRE_US: Final = 500_000
SHARDS_MAX: Final = 4


@dataclass(frozen=True)
class Size:
    """What there is at first. `per_second`: the PSP's budget."""

    shards: int
    processors: int
    per_second: float | None

    @classmethod
    def drawn(cls, random: Random) -> Size:
        return cls(
            random.choice((1, 2, 2, 3)), random.choice((1, 2, 3)), random.choice((None, None, None, 8.0))
        )


class World:
    def __init__(self, seed: int, size: Size) -> None:
        def stream(name: str) -> Random:
            return Random(f"{seed}/{name}")

        self.size = size
        self.trace = Trace()
        self.loop = VirtualLoop(stream("schedule"))
        self.process = self.loop.process("world")
        self.watch = Watch(lambda: self.loop.now_us, size.per_second, self._durable)
        self.network = Network(self.loop, stream("network"))
        self.broker = Broker(self.loop, stream("kafka"), self.trace)
        self.server = Server(self.loop, stream("postgres"), self.trace, statements())
        self.sight = Sight()
        self.volumes: dict[int, Volume] = {}
        self.shards: dict[int, SimShard | None] = {}
        self.cdcs: dict[int, SimCdc | None] = {}
        self.processors: dict[int, SimProcessor | None] = {}
        self.clients = Clients(
            self.loop, stream("clients"), self.network, self.trace, self.watch, self.shards
        )
        self.psp = Psp(self.loop, stream("psp"), self.trace, self.clients.tell)
        self.psp.witness.on_effect = self._effect
        self.random = stream("world")
        self._asked = Asked(self.network, self.shards, self.processors)
        self._outside = Outside(
            stream("processors"),
            self.broker,
            self.server,
            lambda: SimulatedPsp(self.network, self.psp, self.watch.call),
            self._owner_of,
            size.per_second,
        )
        self._shard_random = stream("shards")
        self._cdc_random = stream("cdc")
        entries = tuple(_entry(shard) for shard in range(size.shards))
        self.ring = RingFile(version=1, next_id=size.shards, shards=entries)
        self._hashed = self.ring.ring()
        self.clients.ring = self.ring

    def start(self) -> None:
        for shard in range(self.size.shards):
            self.volumes[shard] = Volume(shard)
            self.start_shard(shard)
            self.start_cdc(shard)
        for number in range(self.size.processors):
            self.start_processor(number)
        self._expire()

    def after(self, delay_us: int, act: Callable[..., object], *args: object) -> None:
        """In the world's own process, which never dies."""
        self.loop.post(self.process, delay_us, act, *args)

    def says(self, what: str) -> None:
        self.trace.add(self.loop.now_us, "world", what)

    # Parts that come and go

    def start_shard(self, shard: int) -> None:
        volume = self.volumes[shard]
        if self.shards.get(shard) is not None:
            return
        try:
            self.shards[shard] = SimShard(
                self.loop,
                self._shard_random,
                volume,
                self.ring,
                self._asked,
                self._skew_us(),
                self.watch.store_of(volume),
                lambda failed: self.after(1_000, self._exits, shard, failed),
            )
        except CorruptionError as error:
            self.watch.says("I6", f"shard {shard} does not start: {error.message}")
        self.says(f"shard-{shard} starts")

    def _exits(self, shard: int, failed: SimShard) -> None:
        if self.shards.get(shard) is failed:
            self.kill_shard(shard, power=False)

    def kill_shard(self, shard: int, *, power: bool) -> None:
        """With the power goes what was not synced, but for what had come to the disk by itself, and cdc."""
        running = self.shards.get(shard)
        if running is None:
            return
        self.loop.kill(running.process)
        self.shards[shard] = None
        if power:
            disk = self.volumes[shard].disk
            disk.lose_unsynced(int(self.random.random() * (len(disk.unsynced) + 1)))
            self.kill_cdc(shard)
        self.says(f"shard-{shard} {'loses its power' if power else 'is killed'}")
        self.after(_RESTART_US + int(self.random.expovariate(1.0) * 1e6), self.start_shard, shard)

    def start_cdc(self, shard: int) -> None:
        if self.cdcs.get(shard) is None:
            self.cdcs[shard] = SimCdc(
                self.loop,
                self._cdc_random,
                self.network,
                self.broker,
                self.volumes[shard],
                lambda: self.shards.get(shard),
                self.sight,
            )

    def kill_cdc(self, shard: int) -> None:
        running = self.cdcs.get(shard)
        if running is not None:
            self.loop.kill(running.process)
            self.cdcs[shard] = None
            self.says(f"cdc-{shard} is killed")
            self.after(_RESTART_US + int(self.random.expovariate(1.0) * 1e6), self.start_cdc, shard)

    def start_processor(self, number: int) -> None:
        if self.processors.get(number) is None:
            self.processors[number] = SimProcessor(self.loop, number, self._outside, self._skew_us())

    def kill_processor(self, number: int) -> None:
        running = self.processors.get(number)
        if running is not None:
            self.loop.kill(running.process)
            self.server.dies(running.process)
            self.processors[number] = None
            self.says(f"processor-{number} is killed")
            self.after(_RESTART_US + int(self.random.expovariate(1.0) * 3e6), self.start_processor, number)

    def _skew_us(self) -> int:
        return int((self.random.random() - 0.5) * 400_000)

    # The ring

    def add_shard(self) -> None:
        if self._is_ring_changing or len(self.volumes) >= SHARDS_MAX:
            return
        shard = self.ring.next_id
        self.volumes[shard] = Volume(shard)
        self.start_shard(shard)
        self.start_cdc(shard)
        self._change_ring((*self.ring.shards, _entry(shard)), shard + 1)

    def remove_shard(self, shard: int) -> None:
        """Out of the ring; it goes on shipping, and speaks for what it has."""
        left = tuple(entry for entry in self.ring.shards if entry.id != shard)
        if left and len(left) < len(self.ring.shards) and not self._is_ring_changing:
            self._change_ring(left, self.ring.next_id)

    @property
    def _is_ring_changing(self) -> bool:
        """Requests go by the ring before still."""
        return self.clients.ring is not self.ring

    def _change_ring(self, shards: tuple[ShardEntry, ...], next_id: int) -> None:
        former = FormerRing(
            version=self.ring.version, left_at_us=self.process.now_us(), shards=self.ring.shards
        )
        self.ring = RingFile(
            version=self.ring.version + 1,
            next_id=next_id,
            shards=shards,
            history=(former, *self.ring.history),
        )
        self._hashed = self.ring.ring()
        self.says(f"the ring is {[entry.id for entry in shards]}")
        for running in self.shards.values():
            if running is not None:
                delay_us = int(self.random.random() * _RING_US)
                self.loop.post(running.process, delay_us, running.ring.set, self.ring)
        self.after(_RING_US, self._reload_nginx)

    def _reload_nginx(self) -> None:
        """Once every shard that runs goes by the new ring."""
        running = [shard for shard in self.shards.values() if shard is not None]
        if all(shard.ring.owners.version == self.ring.version for shard in running):
            self.clients.ring = self.ring
        else:
            self.after(_RING_US, self._reload_nginx)

    def _owner_of(self, checkout_id: str) -> int | None:
        name = self._hashed.owner(checkout_id)
        return next(entry.id for entry in self.ring.shards if entry.name == name)

    def _durable(self, key: tuple[str, str]) -> int | None:
        name = payment_key(*key).encode()
        stored = [volume.disk.synced[PAYMENTS].get(name) for volume in self.volumes.values()]
        versions = [Payment.FromString(raw).version for raw in stored if raw is not None]
        row = self.server.tables.payments.get(key)
        return max(versions if row is None else (*versions, row["version"]), default=None)

    # What goes on all the time

    def _expire(self) -> None:
        self.broker.group.expire()
        self.after(_EXPIRE_US, self._expire)

    def _effect(self, effect: object) -> None:
        self.watch.effect(effect)  # type: ignore[arg-type]
        self.says(f"effect {effect.type} {effect.checkout_id} {effect.amount}")  # type: ignore[attr-defined]

    def check(self) -> None:
        """After every step. Raises Broken."""
        for volume in self.volumes.values():
            self.watch.acknowledged(volume, self.broker)
        for defect in self.loop.defects:
            self.watch.says("defect", defect)
        self.loop.defects.clear()
        self.watch.check()


@contextmanager
def listening(watch: Watch) -> Iterator[None]:
    """What production logs goes to the watch, and nowhere else."""
    before = structlog.get_config()
    structlog.configure(processors=[watch.hear], cache_logger_on_first_use=False)
    try:
        yield
    finally:
        structlog.configure(**before)


def _entry(shard: int) -> ShardEntry:
    return ShardEntry(id=shard, name=f"127.0.0.1:{7100 + shard}", grpc=address_of(shard))
