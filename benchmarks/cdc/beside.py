"""What a tailer beside it costs a shard: the same open loop with the tailer on and off, in pairs.

`STEADY`: it ships what comes. `CATCHING_UP`: it ships the whole log meanwhile, as after an outage of Kafka.
Kafka runs all the time; off means that there is no tailer. What counts is the ratio within a pair.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.cdc import stand_in
from benchmarks.cdc.places import Places, running
from benchmarks.measure import generator, machine
from benchmarks.measure.generator import PERCENTILES, Load, Result
from benchmarks.measure.ratios import Spread, ratios, spread, written
from benchmarks.scale.shards import Shard

STEADY: Final = "steady"
CATCHING_UP: Final = "catching up"
CONNECTIONS: Final = 256
_QUIET_S: Final = 3.0
_DRAIN_S: Final = 120.0
_FIRST_S: Final = 30.0
_LOOK_S: Final = 0.02


@dataclass(frozen=True)
class Pair:
    """One round. The order within it is drawn anew each time."""

    off: Result
    on: Result
    tailer_cpu: float  # of one core, while on
    shipped_per_s: float


@dataclass(frozen=True)
class Measured:
    what: str
    load: Load
    pairs: Sequence[Pair]

    def ratio(self, percent: float) -> Spread | None:
        """How many times the percentile without a tailer the one with it is."""
        on = {number: _ms(pair.on, percent) for number, pair in enumerate(self.pairs)}
        off = {number: _ms(pair.off, percent) for number, pair in enumerate(self.pairs)}
        return ratios(on, off)

    def __str__(self) -> str:
        failed = sum(pair.on.failed + pair.off.failed for pair in self.pairs)
        lines = [
            f"Tailer {self.what}: {self.load.name}, {len(self.pairs)} pairs of {self.load.seconds:g} s, "
            f"{failed} failed"
        ]
        for percent in PERCENTILES:
            off = spread([_ms(pair.off, percent) for pair in self.pairs])
            on = spread([_ms(pair.on, percent) for pair in self.pairs])
            lines.append(
                f"  p{percent:<5g} off {written(off, _two_digits):>22} ms   "
                f"on {written(on, _two_digits):>22} ms   ratio {written(self.ratio(percent), _two_digits)}"
            )
        cpu = spread([pair.tailer_cpu * 100 for pair in self.pairs])
        rate = spread([pair.shipped_per_s / 1e3 for pair in self.pairs])
        lines.append(
            f"  the tailer takes {written(cpu, _two_digits)} % of a core and ships "
            f"{written(rate, _two_digits)} thousand a second"
        )
        return "\n".join(lines)

    def document(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "load": self.load.name,
            "seconds": self.load.seconds,
            "pairs": [
                {
                    "off": pair.off.document(),
                    "on": pair.on.document(),
                    "tailer_cpu": round(pair.tailer_cpu, 4),
                    "shipped_per_s": round(pair.shipped_per_s),
                }
                for pair in self.pairs
            ],
        }


async def measure(
    places: Places,
    shard: Shard,
    loadgen: Path,
    what: str,
    load: Load,
    *,
    rounds: int,
    settings: Mapping[str, str],
    nice: int,
    rng: random.Random,
) -> Measured:
    pairs = []
    for _ in range(rounds):
        results: dict[str, Result] = {}
        cpu = shipped = 0.0
        for state in rng.sample(("on", "off"), 2):
            seed = rng.getrandbits(63)
            if state == "off":
                machine.await_quiet(_QUIET_S)
                results[state] = await asyncio.to_thread(
                    generator.run, loadgen, load, shard.target, seed=seed
                )
            else:
                beginning = _steady if what == STEADY else _catching_up
                async with beginning(places, shard, settings, nice) as pid:
                    before = places.tailers_metric("tollgate_cdc_delivered_total")
                    cpu_before = machine.cpu_seconds([pid])
                    results[state] = await asyncio.to_thread(
                        generator.run, loadgen, load, shard.target, seed=seed
                    )
                    seconds = load.seconds + load.warm_up_s
                    cpu = (machine.cpu_seconds([pid]) - cpu_before) / seconds
                    shipped = places.tailers_metric("tollgate_cdc_delivered_total") - before
            print(".", end="", file=sys.stderr, flush=True)
        pairs.append(Pair(results["off"], results["on"], cpu, shipped / (load.seconds + load.warm_up_s)))
    print("\r", end="", file=sys.stderr)
    return Measured(what, load, pairs)


@asynccontextmanager
async def _steady(places: Places, shard: Shard, settings: Mapping[str, str], nice: int) -> AsyncIterator[int]:
    """Everything from before is shipped, and the shard knows."""
    async with running(places.tailer(shard.grpc, settings, nice)) as process:
        await places.shipped(_DRAIN_S)
        machine.await_quiet(_QUIET_S)
        yield process.pid


@asynccontextmanager
async def _catching_up(
    places: Places, shard: Shard, settings: Mapping[str, str], nice: int
) -> AsyncIterator[int]:
    """Under way from the first change: the shard itself hears of nothing, so next time it is the same."""
    with stand_in.serving(places.stand_in) as told:
        machine.await_quiet(_QUIET_S)
        async with (
            running(places.tailer(places.stand_in, settings, nice)) as process,
            asyncio.timeout(_FIRST_S),
        ):
            while not told.told:
                await asyncio.sleep(_LOOK_S)
            yield process.pid


def _ms(result: Result, percent: float) -> float:
    return (result.latency.percentile_ns(percent) or 0) / 1e6


def _two_digits(value: float) -> str:
    return f"{value:.2f}"
