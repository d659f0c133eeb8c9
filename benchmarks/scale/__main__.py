"""A shard that holds millions of payments beside an empty one, in one run: `make bench-scale`.

Fills a store (or goes on with the one in --filled), then measures POST and GET on both in interleaved pairs,
memory, restarts, and with `--only long` minutes of writing. Prints what the goals came to; writes the raw
numbers with machine, versions and command to `results/`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shlex
import sys
import tempfile
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.fill.loader import Wanted, fill
from benchmarks.measure import generator, machine
from benchmarks.measure.generator import Load
from benchmarks.scale import long_run, pairs, restarts
from benchmarks.scale.shards import new_shard, stop_all
from benchmarks.systems import builds
from benchmarks.systems.catalogue import Setup, new_setup
from benchmarks.systems.system import remove
from tollgate.errors import TollgateError
from tollgate.local.ports import check_free

RESULTS: Final = Path(__file__).resolve().parents[1] / "results"
PARTS: Final = ("post", "get", "cold", "restart", "long")
GOAL_RATIO: Final = 1.5
GOAL_RESIDENT_MIB: Final = 300.0
GOAL_READY_MS: Final = 2000.0
_POLLED: Final = 20_000
_COLD_RATE: Final = 500.0
_SEED: Final = 1  # of the filled payments: a store that is used again holds these
_STORE_METRICS: Final = "tollgate_store_"


class Bench:
    def __init__(self, arguments: argparse.Namespace, setup: Setup, filled_dir: Path) -> None:
        self._arguments = arguments
        self._rng = random.Random(arguments.seed)
        self._loadgen = builds.loadgen()
        self._setup = setup
        base = setup.port_base
        check_free({f"shard at {base + number}": base + number for number in range(4)})
        self._empty = new_shard(setup, "empty", setup.folder / "empty", base)
        self._filled_dir = filled_dir
        self._filled = new_shard(setup, "filled", filled_dir, base + 2)
        self._resident: list[float] = []
        self.document: dict[str, Any] = {}
        self.goals: list[tuple[str, float, float]] = []

    async def run(self) -> None:
        parts = self._arguments.only
        async with AsyncExitStack() as ending:
            ending.push_async_callback(stop_all, (self._empty, self._filled))
            await self._empty.start()
            self.document["first_start_ms"] = await self._filled.start()
            if "post" in parts:
                for rate in self._arguments.rates:
                    self._pairs("post", rate)
            if "get" in parts:
                self._pairs("get", max(self._arguments.rates))
            if self._resident:
                self._memory()
            if "cold" in parts:
                await self._cold()
            if "restart" in parts:
                await self._restarts()
        if "long" in parts:
            await self._long()

    def _pairs(self, kind: generator.Kind, rate: float) -> None:
        polled = {"filled": (_SEED, self._arguments.payments)}
        if kind == "get":
            seed = self._rng.getrandbits(63)
            generator.create(self._loadgen, self._empty.target, seed=seed, count=_POLLED)
            polled["empty"] = (seed, _POLLED)
        load = Load(kind, pairs.CONNECTIONS, self._arguments.seconds, rate)
        measured = pairs.measure(
            self._loadgen,
            load,
            self._empty,
            self._filled,
            rounds=self._arguments.rounds,
            rng=self._rng,
            polled=polled,
        )
        print(measured, flush=True)
        self._resident += [pair.resident_mib for pair in measured.pairs]
        self.document.setdefault("pairs", []).append(measured.document())
        if (ratio := measured.ratio(99)) is not None:
            self.goals.append((f"{load.name}: p99 x empty shard's", ratio.median, GOAL_RATIO))

    def _memory(self) -> None:
        most = max(self._resident)
        parts = {
            name: value for name, value in self._filled.metrics().items() if name.startswith(_STORE_METRICS)
        }
        self.document["memory"] = {"resident_mib": most, **parts}
        self.goals.append(("resident MiB of the filled shard", most, GOAL_RESIDENT_MIB))
        shown = "  ".join(
            f"{name.removeprefix(_STORE_METRICS)} {value:,.0f}" for name, value in parts.items()
        )
        print(f"Filled shard: at most {most:.0f} MiB resident. {shown}", flush=True)

    async def _cold(self) -> None:
        """GET of the filled shard with nothing of the store in any cache: each is a read of the disk."""
        await self._filled.stop()
        self._filled.forget_pages()
        await self._filled.start()
        load = Load("get", pairs.CONNECTIONS, self._arguments.seconds, _COLD_RATE, warm_up_s=0.0)
        result = generator.run(
            self._loadgen, load, self._filled.target, seed=_SEED, ids=self._arguments.payments
        )
        shown = generator.latency_ms(result.latency)
        print(f"GET from a cold store at {_COLD_RATE:g}/s: {shown}, {result.failed} failed", flush=True)
        self.document["cold"] = result.document()

    async def _restarts(self) -> None:
        measured = await restarts.measure(
            self._loadgen, self._filled, rounds=self._arguments.restarts, rng=self._rng
        )
        print(measured, flush=True)
        self.document["restarts"] = measured.document()
        self.goals.append(("slowest restart until ready, ms", measured.slowest_ms, GOAL_READY_MS))

    async def _long(self) -> None:
        shard = new_shard(
            self._setup, "long", self._filled_dir, self._setup.port_base + 2, long_run.RETENTION
        )
        async with AsyncExitStack() as ending:
            ending.push_async_callback(stop_all, (shard,))
            await shard.start()
            measured = await long_run.measure(
                self._loadgen,
                shard,
                rate=max(self._arguments.rates),
                piece_s=self._arguments.long_s / 10,
                count=10,
                rng=self._rng,
            )
        print(measured, flush=True)
        self.document["long"] = measured.document()


def _shards_folder(arguments: argparse.Namespace, folder: Path) -> Path:
    return arguments.filled.resolve() if arguments.filled is not None else folder / "filled"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-scale", description=__doc__)
    parser.add_argument("--payments", type=int, default=1_000_000)
    parser.add_argument("--unshipped", type=int, help="of these; a tenth when left out")
    parser.add_argument("--filled", type=Path, help="a store that is kept and used again; it goes on growing")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS[:-1])
    parser.add_argument("--rates", type=float, nargs="+", default=[2000.0, 5000.0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each run")
    parser.add_argument("--restarts", type=int, default=5)
    parser.add_argument("--long-s", type=float, default=300.0)
    parser.add_argument("--port-base", type=int, default=26600)
    parser.add_argument("--data-dir", type=Path, default=builds.BUILT, help="on the disk to measure with")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    arguments = parser.parse_args()
    if arguments.unshipped is None:
        arguments.unshipped = arguments.payments // 10
    return arguments


def _write(arguments: argparse.Namespace, bench: Bench, disk: dict[str, Any]) -> Path:
    path = RESULTS / f"scale-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    document = {
        "command": shlex.join(["python", "-m", "benchmarks.scale", *sys.argv[1:]]),
        "seed": arguments.seed,
        "machine": machine.describe(),
        "disk": disk,
        "goals": [{"name": name, "value": value, "at_most": bound} for name, value, bound in bench.goals],
        **bench.document,
    }
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


async def _fill_up(arguments: argparse.Namespace, folder: Path) -> None:
    wanted = Wanted(arguments.payments, arguments.unshipped, _SEED)
    if (folder / "filled").exists():
        print(f"{folder} is filled already.")
        return
    print(f"Filling {folder} with {arguments.payments:,} payments.", flush=True)
    await fill(folder, 0, wanted)
    (folder / "filled").touch()


def main() -> int:
    arguments = _arguments()
    arguments.data_dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="scale-", dir=arguments.data_dir.resolve()))
    filled_dir = _shards_folder(arguments, folder)
    try:
        asyncio.run(_fill_up(arguments, filled_dir))
        disk = {"file_system": machine.check_disk(folder), "fdatasync_ms_before": machine.fsync_ms(folder)}
        setup = new_setup(folder, arguments.port_base, 1, "httptools")
        bench = Bench(arguments, setup, filled_dir)
        asyncio.run(bench.run())
        disk["fdatasync_ms_after"] = machine.fsync_ms(folder)
    except TollgateError as error:
        print(f"bench-scale: {error.message}\nThe logs are in {folder}.", file=sys.stderr)
        return 1
    remove(folder)
    for name, value, bound in bench.goals:
        print(f"{'met' if value <= bound else 'MISSED':8}{name} <= {bound:g}: {value:.2f}")
    print(f"Raw numbers: {_write(arguments, bench, disk)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
