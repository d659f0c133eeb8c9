"""The tailer beside its limit, and the shard beside the tailer, in one run: `make bench-cdc`.

Fills a store with changes that nobody has shipped, then measures catching up beside a bare idempotent
producer, the shard's latency while the tailer catches up and while it ships what comes, lag under an open
loop, what an idle tailer takes, how fast statuses come back, and how long verifying all of it takes. Prints
what the goals came to; writes the raw numbers with machine, versions and command to `results/`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shlex
import shutil
import sys
import tempfile
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from benchmarks.cdc import beside, catch_up, check, idle, lag, statuses
from benchmarks.cdc.places import FLUSHED, TOPICS, Places, fresh_topic, running
from benchmarks.fill.loader import Wanted, fill
from benchmarks.measure import machine
from benchmarks.measure.generator import Load
from benchmarks.scale.shards import Shard
from benchmarks.systems import builds
from benchmarks.systems.catalogue import new_setup
from benchmarks.systems.system import remove
from tollgate.errors import TollgateError

RESULTS: Final = Path(__file__).resolve().parents[1] / "results"
PARTS: Final = ("catch-up", "starving", "cost", "lag", "idle", "statuses", "verify")
GOAL_CATCH_UP: Final = 0.3
GOAL_LAG_P99_MS: Final = 50.0
GOAL_COST_P99: Final = 1.5
GOAL_IDLE_CPU: Final = 0.01
GOAL_VERIFY_S: Final = 60.0
_SEED: Final = 1
_SNAPSHOTS: Final = 200_000
_RECORDS_MIN: Final = 20_000
_DRAIN_S: Final = 600.0
_IDLE_S: Final = 10.0
# A tailer in full flight beside a shard at rest takes a second to see that it works again.
_WARM_UP_S: Final = {beside.CATCHING_UP: 2.0, beside.STEADY: 0.5}
_FILLED: Final = "filled-for-bench-cdc"


class Bench:
    def __init__(self, arguments: argparse.Namespace, places: Places) -> None:
        self._arguments = arguments
        self._places = places
        self._rng = random.Random(arguments.seed)
        self._settings = dict(setting.split("=", 1) for setting in arguments.settings)
        self.document: dict[str, Any] = {}
        self.goals: list[tuple[str, bool, float, str]] = []

    async def run(self) -> None:
        parts, places = self._arguments.only, self._places
        async with AsyncExitStack() as ending:
            await ending.enter_async_context(running(places.kafka()))
            fresh_topic(places.bootstrap, TOPICS[0])
            if "catch-up" in parts:
                await self._catch_up()
            if set(parts) == {"catch-up"}:
                return
            shard = places.shard()
            ending.push_async_callback(shard.stop)
            await shard.start()
            if "starving" in parts:
                await self._beside(shard, beside.CATCHING_UP)
            async with running(places.tailer(shard.grpc, self._settings, self._arguments.nice)) as tailer:
                await places.shipped(_DRAIN_S)
                if "lag" in parts:
                    await self._lag(shard, tailer.pid)
                if "idle" in parts:
                    await self._idle(tailer.pid)
                if "statuses" in parts:
                    await self._statuses(tailer.pid, shard)
                if "verify" in parts:
                    await self._verify(shard)
            if "cost" in parts:
                await self._beside(shard, beside.STEADY)

    async def _catch_up(self) -> None:
        measured = await catch_up.measure(
            self._places,
            records=self._arguments.records,
            rounds=self._arguments.catch_ups,
            settings=self._settings,
            rng=self._rng,
        )
        print(measured, flush=True)
        self.document["catch_up"] = measured.document()
        for topic in TOPICS:
            if (ratio := measured.ratio(topic)) is not None:
                name = f"catch-up x bare producer, {topic}, >= {GOAL_CATCH_UP:g}"
                self._goal(name, ratio.median >= GOAL_CATCH_UP, ratio.median)

    async def _beside(self, shard: Shard, what: str) -> None:
        measured = await beside.measure(
            self._places,
            shard,
            builds.loadgen(),
            what,
            Load(
                "post",
                beside.CONNECTIONS,
                self._arguments.seconds,
                self._arguments.cost_rate,
                warm_up_s=_WARM_UP_S[what],
            ),
            rounds=self._arguments.rounds,
            settings=self._settings,
            nice=self._arguments.nice,
            rng=self._rng,
        )
        print(measured, flush=True)
        self.document[what] = measured.document()
        if (ratio := measured.ratio(99)) is not None:
            name = f"shard's p99 with the tailer {what} x without, <= {GOAL_COST_P99:g}"
            self._goal(name, ratio.median <= GOAL_COST_P99, ratio.median)

    async def _lag(self, shard: Shard, pid: int) -> None:
        measured = await lag.measure(
            self._places,
            shard,
            pid,
            builds.loadgen(),
            rate=self._arguments.lag_rate,
            seconds=self._arguments.lag_seconds,
            rng=self._rng,
        )
        print(measured, flush=True)
        self.document["lag"] = measured.document()
        p99 = measured.percentile_ms(99)
        name = f"lag p99 at {self._arguments.lag_rate:g}/s, ms, < {GOAL_LAG_P99_MS:g}"
        self._goal(name, p99 < GOAL_LAG_P99_MS, p99)

    async def _idle(self, pid: int) -> None:
        await asyncio.sleep(1.0)
        measured = await idle.measure(pid, _IDLE_S)
        print(measured, flush=True)
        self.document["idle"] = measured.document()
        self._goal("idle, % of a core, < 1", measured.cpu < GOAL_IDLE_CPU, measured.cpu * 100)

    async def _statuses(self, tailer: int, shard: Shard) -> None:
        count = min(_SNAPSHOTS, self._arguments.records)
        measured = await statuses.measure(self._places, tailer, shard, count)
        print(measured, flush=True)
        self.document["statuses"] = measured.document()

    async def _verify(self, shard: Shard) -> None:
        measured = await asyncio.to_thread(check.measure, self._places, shard.grpc)
        print(measured, flush=True)
        self.document["verify"] = measured.document()
        name = f"seconds to verify a million changes, < {GOAL_VERIFY_S:g}"
        took = measured.seconds_a_million
        self._goal(name, measured.ok and took < GOAL_VERIFY_S, took)

    def _goal(self, name: str, met: bool, value: float) -> None:
        self.goals.append((name, met, value, "met" if met else "MISSED"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-cdc", description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000, help="changes to catch up with")
    parser.add_argument("--catch-ups", type=int, default=3, help="rounds of catching up")
    parser.add_argument("--rounds", type=int, default=7, help="pairs with the tailer on and off")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each run of a pair")
    parser.add_argument("--cost-rate", type=float, default=2000.0, help="of those runs")
    parser.add_argument("--lag-rate", type=float, default=5000.0)
    parser.add_argument("--lag-seconds", type=float, default=15.0)
    parser.add_argument("--topic", choices=TOPICS, default=FLUSHED, help="as one node has it, or a cluster")
    parser.add_argument("--nice", type=int, default=0, help="of the tailer beside the shard")
    parser.add_argument("--settings", nargs="+", default=[], help="of the tailer, as TOLLGATE_CDC__X=y")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--quick", action="store_true", help="one short round of each: does it work?")
    parser.add_argument(
        "--filled", type=Path, help="a store to begin with a copy of; filled when it is empty"
    )
    parser.add_argument("--port-base", type=int, default=27100)
    parser.add_argument("--data-dir", type=Path, default=builds.BUILT, help="on the disk to measure with")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.records, arguments.catch_ups, arguments.rounds = 50_000, 1, 1
        arguments.seconds, arguments.lag_seconds = 1.0, 3.0
    if arguments.records < _RECORDS_MIN:
        parser.error(f"--records is at least {_RECORDS_MIN}: fewer are shipped before a rate can be seen")
    return arguments


async def _store(arguments: argparse.Namespace, folder: Path) -> None:
    """Whoever ships it, acknowledges it: each run has a store of its own."""
    filled = arguments.filled.resolve() if arguments.filled is not None else folder / "store"
    if not (filled / _FILLED).exists():
        print(f"Filling {filled} with {arguments.records:,} changes.", flush=True)
        await fill(filled, 0, Wanted(arguments.records, arguments.records, _SEED))
        (filled / _FILLED).touch()
    if filled != folder / "store":
        shutil.copytree(filled, folder / "store")


def _write(arguments: argparse.Namespace, bench: Bench, disk: dict[str, Any]) -> Path:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"cdc-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    described = machine.describe()
    described["packages"]["confluent-kafka"] = version("confluent-kafka")
    document = {
        "command": shlex.join(["python", "-m", "benchmarks.cdc", *sys.argv[1:]]),
        "seed": arguments.seed,
        "machine": described,
        "disk": disk,
        "goals": [{"name": name, "met": met, "value": value} for name, met, value, _ in bench.goals],
        **bench.document,
    }
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def main() -> int:
    arguments = _arguments()
    arguments.data_dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="cdc-", dir=arguments.data_dir.resolve()))
    try:
        builds.loadgen()
        places = Places(new_setup(folder, arguments.port_base, 1, "httptools"), folder / "store")
        places.check()
        disk = {"file_system": machine.check_disk(folder), "fdatasync_ms_before": machine.fsync_ms(folder)}
        asyncio.run(_store(arguments, folder))
        bench = Bench(arguments, places)
        asyncio.run(bench.run())
        disk["fdatasync_ms_after"] = machine.fsync_ms(folder)
    except TollgateError as error:
        print(f"bench-cdc: {error.message}\nThe logs are in {folder}.", file=sys.stderr)
        return 1
    remove(folder)
    for name, _, value, verdict in bench.goals:
        print(f"{verdict:8}{name}: {value:.2f}")
    print(f"Raw numbers: {_write(arguments, bench, disk)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
