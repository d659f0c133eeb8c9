"""A shard's whole log, shipped: the tailer beside a bare producer, on the same topic, one after the other.

Each rate is that from the first delivery to the last, so nobody's start counts. The tailer ships the store's
own changes; the bare producer sends as many of the same keys and bytes.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from benchmarks.cdc import bare, stand_in
from benchmarks.cdc.places import FLUSHED, TOPICS, Places, fresh_topic, running
from benchmarks.measure.machine import await_quiet, cpu_seconds
from benchmarks.measure.ratios import Spread, ratios, spread, written
from benchmarks.systems.builds import ROOT
from tollgate.errors import OperationalError

TAILER: Final = "tailer"
BARE: Final = "bare producer"
_QUIET_S: Final = 3.0
_LEAST_PER_S: Final = 2_000  # slower is no measurement
_LOOK_S: Final = 0.02


@dataclass(frozen=True)
class Run:
    topic: str
    system: str
    round: int
    records: int
    seconds: float
    cpu_s: float

    @property
    def per_second(self) -> float:
        return self.records / self.seconds

    @property
    def cpu_us(self) -> float:
        return self.cpu_s / self.records * 1e6


@dataclass(frozen=True)
class Measured:
    runs: list[Run]

    def of(self, topic: str, system: str) -> list[Run]:
        return [run for run in self.runs if (run.topic, run.system) == (topic, system)]

    def ratio(self, topic: str) -> Spread | None:
        """How many times the bare producer the tailer is, round by round."""
        mine, other = (
            {run.round: run.per_second for run in self.of(topic, system)} for system in (TAILER, BARE)
        )
        return ratios(mine, other)

    def __str__(self) -> str:
        lines = ["Catch-up, thousand changes a second; CPU microseconds a change"]
        for topic in TOPICS:
            for system in (BARE, TAILER):
                runs = self.of(topic, system)
                rate = spread([run.per_second / 1e3 for run in runs])
                cpu = spread([run.cpu_us for run in runs])
                lines.append(f"  {topic:18} {system:14} {_shown(rate):>22}   CPU {_shown(cpu):>18}")
            ratio = written(self.ratio(topic), lambda value: f"{value:.2f}")
            lines.append(f"  {topic:18} {'ratio':14} {ratio:>22}")
        return "\n".join(lines)

    def document(self) -> dict[str, Any]:
        return {
            "bare_config": bare.CONFIG,
            "runs": [{**asdict(run), "per_second": round(run.per_second)} for run in self.runs],
        }


async def measure(
    places: Places, *, records: int, rounds: int, settings: Mapping[str, str], rng: random.Random
) -> Measured:
    runs = []
    for number in range(rounds):
        for topic in rng.sample(TOPICS, len(TOPICS)):
            for system in rng.sample((TAILER, BARE), 2):
                fresh_topic(places.bootstrap, topic)
                await_quiet(_QUIET_S)
                if system == TAILER:
                    numbers = await _tailer(places, records, settings)
                else:
                    numbers = await asyncio.to_thread(_bare, places, records)
                runs.append(Run(topic, system, number, *numbers))
                print(".", end="", file=sys.stderr, flush=True)
    print("\r", end="", file=sys.stderr)
    fresh_topic(places.bootstrap, FLUSHED)  # as the stack has it
    return Measured(runs)


async def _tailer(places: Places, records: int, settings: Mapping[str, str]) -> tuple[int, float, float]:
    with stand_in.serving(places.stand_in) as shard:
        async with running(places.tailer(places.stand_in, settings)) as process:
            deadline = time.monotonic() + 30.0 + records / _LEAST_PER_S
            first_cpu_s = 0.0
            while shard.last < records:
                if shard.told and not first_cpu_s:
                    first_cpu_s = cpu_seconds([process.pid])
                if time.monotonic() > deadline:
                    raise OperationalError(f"Only {shard.last} of {records} changes were shipped in time.")
                await asyncio.sleep(_LOOK_S)
            cpu_s = cpu_seconds([process.pid]) - first_cpu_s
    (first_at, first), (last_at, last) = shard.told[0], shard.told[-1]
    return last - first, last_at - first_at, cpu_s


def _bare(places: Places, records: int) -> tuple[int, float, float]:
    command = [sys.executable, "-m", "benchmarks.cdc.bare", "--bootstrap", places.bootstrap]
    command += ["--data-dir", str(places.data_dir), "--records", str(records)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60.0 + records / _LEAST_PER_S,
    )
    if done.returncode != 0:
        raise OperationalError(f"The bare producer failed: {done.stderr.strip()[-500:]}")
    said = json.loads(done.stdout)
    return said["records"], said["seconds"], said["cpu_s"]


def _shown(value: Spread | None) -> str:
    return written(value, lambda number: f"{number:.1f}")
