"""One Kafka, one Postgres, one PSP and some processors over many rounds, each with a fault at its moment.

A round: payments are shipped, then captures and cancels asked for, then refunds. In one of these phases the
trap is set. When all has come to rest, the PSP's own ledger, Postgres and Kafka must say what was wanted,
once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import grpc
from confluent_kafka import Producer

from tests.fault.effects.plan import Phase, Plan, plan_of
from tests.fault.effects.purchases import MERCHANT, Asked, Purchase, purchases
from tests.fault.effects.strikes import Station, Strikes
from tests.fault.effects.trap import Trap
from tests.fault.effects.witness import (
    Told,
    calls_of,
    is_at_rest,
    not_as_wanted,
    problems_in_ledger,
    problems_in_postgres,
    versions_of,
)
from tests.fixtures.changes import change_record
from tests.fixtures.free_port import free_port
from tests.fixtures.kafka import embedded_kafka
from tests.fixtures.own_postgres import OwnPostgres
from tests.fixtures.simulator import RunningSimulator
from tollgate.clock import SystemClock
from tollgate.local.topics import ensure_topics
from tollgate.v1.ledger_pb2 import RequestOperationRequest
from tollgate.v1.ledger_pb2_grpc import LedgerStub

_REST_S: Final = 90.0  # a Kafka that was killed, and a busy machine
_LOOK_EVERY_S: Final = 0.03
_STEP_S_MAX: Final = 5.0  # what was longer between two looks, everything stood still in
_ASKED_S: Final = 5.0
_ASKED_AGAIN_S: Final = 0.05
# The last is what asyncpg says of a connection that broke in the middle of an exchange.
_UNREACHABLE: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    OSError,
    TimeoutError,
    asyncpg.InternalClientError,
)


@dataclass(frozen=True)
class Round:
    """What one round came to. `unheard` calls never had an answer, `late` ones had it after their lease."""

    plan: Plan
    processors: int
    payments: int
    effects: int
    calls: dict[str, int]
    seconds: float

    def summary(self) -> str:
        calls = self.calls
        came = f"{calls['again']:2} again {calls['unheard']:2} unheard {calls['late']:2} late"
        done = f"{self.effects} effects {calls['made']:3} calls {came}"
        return f"{self.plan!s:42} {self.processors} up {done} {self.seconds:5.1f} s"


@dataclass
class Rig:
    postgres: OwnPostgres
    simulator: RunningSimulator
    stations: Sequence[Station]
    strikes: Strikes
    trap: Trap
    producer: Producer
    told: Told
    run: str = field(default_factory=lambda: uuid4().hex[:8])
    _looking: asyncpg.Connection[asyncpg.Record] | None = None

    async def play(self, seed: int, number: int) -> Round:
        """Raises AssertionError when a promise is broken."""
        began = time.monotonic()
        plan = plan_of(seed, number)
        name = f"{self.run}-{number:05}"
        wanted = purchases(name, number)
        random = Random(f"clients {seed} {number}")
        await self.strikes.all_ready()
        for phase in Phase:
            if phase is plan.phase:
                self.trap.set(plan.moment, plan.passing, self.strikes.of(plan.fault))
            if phase is Phase.PAYMENTS:
                await asyncio.to_thread(self._ship, wanted)
            else:
                await self._ask_all(wanted, phase, random)
            await self._rest(name, wanted, phase, f"{plan}, after the {phase.name.lower()}")
            if phase is plan.phase:
                await self.trap.struck()
        await self.strikes.over()
        await self._rest(name, wanted, Phase.REFUNDS, f"{plan}, in the end")
        problems, calls = await self._problems(name, wanted)
        assert not problems, f"seed {seed}, round {number}, {plan}: {len(problems)}, {problems[:5]}"
        effects = sum(purchase.effects().total() for purchase in wanted)
        running = self.strikes.running()
        return Round(plan, running, len(wanted), effects, calls, time.monotonic() - began)

    def _ship(self, wanted: Sequence[Purchase]) -> None:
        """A third of the changes comes twice: from another shard, or the same one once more."""
        now_us = SystemClock().now_us()
        for number, purchase in enumerate(wanted):
            record = change_record(purchase.payment(now_us), shard=number % 2)
            again = [[], [record], [change_record(purchase.payment(now_us), shard=1 - number % 2)]]
            for shipped in (record, *(again[number % 6] if number % 6 < len(again) else [])):
                self.producer.produce(
                    shipped.topic, key=shipped.key, value=shipped.value, headers=list(shipped.headers)
                )
        assert self.producer.flush(_REST_S) == 0, "Kafka did not take the changes"

    async def _ask_all(self, wanted: Sequence[Purchase], phase: Phase, random: Random) -> None:
        async with asyncio.TaskGroup() as group:
            for purchase in wanted:
                for asked in purchase.asks(phase):
                    first = random.randrange(len(self.stations))
                    group.create_task(self._ask(purchase, asked, first))

    async def _ask(self, purchase: Purchase, asked: Asked, station: int) -> None:
        """As a shard does for a client who has had no answer: again, with the same key, of any processor."""
        request = RequestOperationRequest(
            merchant=MERCHANT,
            checkout_id=purchase.checkout_id,
            type=asked.type,
            amount=asked.amount,
            idempotency_key=asked.client_key,
        )
        deadline = time.monotonic() + _REST_S
        while True:
            with suppress(grpc.aio.AioRpcError):
                async with grpc.aio.insecure_channel(self.stations[station].grpc) as channel:
                    answer = await LedgerStub(channel).RequestOperation(request, timeout=_ASKED_S)
                break
            assert time.monotonic() < deadline, f"nobody decides on {asked} of {purchase.checkout_id}"
            station = (station + 1) % len(self.stations)
            await asyncio.sleep(_ASKED_AGAIN_S)
        said = answer.WhichOneof("answer")
        assert said in ("accepted", "known"), f"{asked} of {purchase.checkout_id}: {answer}"
        operation = answer.accepted if said == "accepted" else answer.known
        purchase.operation_ids[asked.client_key] = operation.id

    async def _rest(self, name: str, wanted: Sequence[Purchase], after: Phase, what: str) -> None:
        left_s, looked = _REST_S, time.monotonic()
        while not await self._look(lambda postgres: is_at_rest(postgres, name, wanted, after)):
            now = time.monotonic()
            left_s -= min(now - looked, _STEP_S_MAX)
            looked = now
            if left_s < 0:
                why = await self._look(lambda postgres: not_as_wanted(postgres, name, wanted))
                raise AssertionError(f"not at rest within {_REST_S:g} s: {name}, {what}: {why}")
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _look(
        self, look: Callable[[asyncpg.Connection[asyncpg.Record]], Awaitable[bool | str]]
    ) -> bool | str:
        """False while Postgres is away."""
        try:
            if self._looking is None or self._looking.is_closed():
                self._looking = await asyncpg.connect(self.postgres.dsn, timeout=_ASKED_S)
            return await look(self._looking)
        except _UNREACHABLE:
            await self.close()
            return False

    async def _problems(self, name: str, wanted: Sequence[Purchase]) -> tuple[list[str], dict[str, int]]:
        postgres = await asyncpg.connect(self.postgres.dsn, timeout=_ASKED_S)
        try:
            problems = await problems_in_postgres(postgres, name)
            versions = await versions_of(postgres, name)
            calls = await calls_of(postgres, name)
        finally:
            await postgres.close()
        problems += problems_in_ledger(await self.simulator.ledger(), name, wanted)
        problems += await asyncio.to_thread(self.told.problems, versions)
        return problems, calls

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.terminate()
            self._looking = None


@asynccontextmanager
async def _opened(folder: Path, processors: int) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        kafka = embedded_kafka(folder)
        stack.push_async_callback(asyncio.to_thread, kafka.kill)
        postgres = OwnPostgres(folder, free_port())
        stack.push_async_callback(postgres.stop)
        simulator = RunningSimulator(folder)
        stack.push_async_callback(simulator.stop)
        await asyncio.gather(asyncio.to_thread(kafka.start), postgres.start(), simulator.ready())
        await asyncio.to_thread(ensure_topics, kafka.bootstrap, embedded=True)
        trap = Trap()
        psp_port = urlsplit(simulator.url).port or 0
        # The last one joins and leaves as rounds want it.
        stations = [
            Station(
                number, folder, postgres.port, psp_port, kafka.bootstrap, trap, is_steady=number < processors
            )
            for number in range(processors + 1)
        ]
        for station in stations:
            stack.push_async_callback(station.close)
            await station.open()
        strikes = Strikes(stations, postgres, simulator, kafka)
        producer = Producer(
            {"bootstrap.servers": kafka.bootstrap, "partitioner": "murmur2_random", "acks": "all"}
        )
        told = Told(kafka.bootstrap)
        stack.callback(told.close)
        rig = Rig(postgres, simulator, stations, strikes, trap, producer, told)
        stack.push_async_callback(rig.close)
        stack.push_async_callback(strikes.over)
        yield rig


class Playing:
    """The same rig for callers without a loop; between rounds its wires stand still."""

    def __init__(self, runner: asyncio.Runner, rig: Rig) -> None:
        self._runner = runner
        self._rig = rig

    def play(self, seed: int, number: int) -> Round:
        return self._runner.run(self._rig.play(seed, number))


@contextmanager
def effects_rig(folder: Path, processors: int) -> Iterator[Playing]:
    folder.chmod(0o755)  # Postgres may have to run as another user
    with asyncio.Runner() as runner:
        opened = _opened(folder, processors)
        rig = runner.run(opened.__aenter__())
        try:
            yield Playing(runner, rig)
        finally:
            runner.run(opened.__aexit__(None, None, None))
