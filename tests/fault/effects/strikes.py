"""The processors of a rig on their wires, and what each fault does to them and to what they need.

A strike decides at once whether the message it was struck at is passed on; what has to come back comes back
by itself meanwhile, see `over`.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.fault.effects.plan import Fault
from tests.fault.effects.postgres_wire import PostgresWire
from tests.fault.effects.psp_wire import PspWire
from tests.fault.effects.trap import Strike, Trap
from tests.fixtures.kafka import EmbeddedKafka
from tests.fixtures.own_postgres import OwnPostgres
from tests.fixtures.processor_process import RunningProcessor, processor_on
from tests.fixtures.simulator import RunningSimulator
from tollgate.local.postgres import postgres_dsn

TIMEOUT_S: Final = 0.5
LEASE_S: Final = 1.2
_BEYOND_LEASE_S: Final = LEASE_S + 0.6
_BEYOND_SESSION_S: Final = 7.5  # Kafka's consumer session is 6 s
_SLOW_MS: Final = round(1500 * TIMEOUT_S)


class Station:
    """One processor with wires of its own. A steady one has a name in the consumer group and comes back to
    its partitions; the other comes and goes.
    """

    def __init__(
        self, number: int, folder: Path, postgres: int, psp: int, kafka: str, trap: Trap, *, is_steady: bool
    ) -> None:
        self.number = number
        self.is_steady = is_steady
        self._folder = folder / f"processor-{number}"
        self._kafka = kafka
        self._postgres = PostgresWire(number, postgres, trap)
        self._psp = PspWire(number, psp, trap)
        self._stack = AsyncExitStack()
        self._processor: RunningProcessor | None = None
        self._is_up = False

    @property
    def is_up(self) -> bool:
        return self._is_up

    @property
    def processor(self) -> RunningProcessor:
        assert self._processor is not None
        return self._processor

    @property
    def grpc(self) -> str:
        """Where nobody listens before the processor was started first."""
        return self._processor.environment["TOLLGATE_PROCESSOR__GRPC"] if self._processor else "127.0.0.1:1"

    async def open(self) -> None:
        self._folder.mkdir()
        await self._postgres.open()
        await self._psp.open()
        if self.is_steady:
            await self.start()

    async def start(self) -> None:
        self._is_up = True
        if self._processor is not None:
            self._processor.start()
            return
        name = {"TOLLGATE_PROCESSOR__INSTANCE": f"steady-{self.number}"} if self.is_steady else {}
        self._processor = await self._stack.enter_async_context(
            processor_on(
                self._folder,
                postgres_dsn(self._postgres.port),
                self._kafka,
                self._psp.url,
                TOLLGATE_PROCESSOR__LEASE_S=str(LEASE_S),
                TOLLGATE_PSP__SIMULATOR__TIMEOUT_S=str(TIMEOUT_S),
                **name,
            )
        )

    def kill(self) -> None:
        self._is_up = False
        self.processor.kill()

    async def stop(self) -> None:
        self._is_up = False
        await self.processor.stop()

    def signal(self, number: signal.Signals) -> None:
        assert self.processor.running is not None
        os.kill(self.processor.running.pid, number)

    async def close(self) -> None:
        await self._stack.aclose()
        await self._postgres.close()
        await self._psp.close()


class Strikes:
    def __init__(
        self,
        stations: Sequence[Station],
        postgres: OwnPostgres,
        simulator: RunningSimulator,
        kafka: EmbeddedKafka,
    ) -> None:
        self._stations = stations
        self._postgres = postgres
        self._simulator = simulator
        self._kafka = kafka
        self._coming_back: set[asyncio.Task[None]] = set()

    def of(self, fault: Fault) -> Strike:
        strikes: dict[Fault, Strike] = {
            Fault.KILL: self._kill,
            Fault.FREEZE: partial(self._freeze, _BEYOND_LEASE_S),
            Fault.FREEZE_LONG: partial(self._freeze, _BEYOND_SESSION_S),
            Fault.CUT: self._cut,
            Fault.DELAY: self._delay,
            Fault.REBALANCE: self._rebalance,
            Fault.SLOW_PSP: self._slow_psp,
            Fault.KILL_PSP: self._kill_psp,
            Fault.KILL_POSTGRES: self._kill_postgres,
            Fault.KILL_KAFKA: self._kill_kafka,
        }
        return strikes[fault]

    async def all_ready(self) -> None:
        await asyncio.gather(*(station.processor.ready() for station in self._stations if station.is_up))

    def running(self) -> int:
        return sum(station.is_up for station in self._stations)

    async def over(self) -> None:
        """Returns when all that was struck is there again. Raises what kept it from that."""
        await asyncio.gather(*self._coming_back)

    def _meanwhile(self, coming_back: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coming_back)
        self._coming_back.add(task)
        task.add_done_callback(self._coming_back.discard)

    async def _kill(self, victim: int) -> bool:
        station = self._stations[victim]
        station.kill()
        await station.start()
        return False

    async def _freeze(self, for_s: float, victim: int) -> bool:
        """What it had sent arrives; what it was to hear, it hears afterwards."""
        self._stations[victim].signal(signal.SIGSTOP)
        self._meanwhile(self._thaw(self._stations[victim], for_s))
        return True

    async def _thaw(self, station: Station, after_s: float) -> None:
        try:
            await asyncio.sleep(after_s)  # the time is what the fault is
        finally:
            station.signal(signal.SIGCONT)

    async def _cut(self, _victim: int) -> bool:
        return False

    async def _delay(self, _victim: int) -> bool:
        await asyncio.sleep(_BEYOND_LEASE_S)  # as above
        return True

    async def _rebalance(self, victim: int) -> bool:
        """The one that comes and goes may be the victim itself."""
        station = self._stations[-1]
        self._meanwhile(station.stop() if station.is_up else station.start())
        return True

    async def _slow_psp(self, _victim: int) -> bool:
        await self._simulator.set_scenario(latency_ms=_SLOW_MS)
        self._meanwhile(self._quick_psp())
        return True

    async def _quick_psp(self) -> None:
        await asyncio.sleep(_BEYOND_LEASE_S)  # as above
        await self._simulator.set_scenario(latency_ms=0)

    async def _kill_psp(self, _victim: int) -> bool:
        await self._simulator.kill()
        self._meanwhile(self._simulator.start_again())
        return False

    async def _kill_postgres(self, _victim: int) -> bool:
        await self._postgres.kill()
        self._meanwhile(self._postgres.start())
        return False

    async def _kill_kafka(self, _victim: int) -> bool:
        await asyncio.to_thread(self._kafka.kill)
        self._meanwhile(asyncio.to_thread(self._kafka.start))
        return True
