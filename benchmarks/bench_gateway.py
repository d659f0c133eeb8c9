"""The gateway beside its limits and its peers, in one run: `make bench-gateway`.

Every system is started once; each experiment gives each of them the same load once a round, in a shuffled
order, and waits for the machine to be quiet before each run. What counts are ratios within a round, as
medians over the rounds with their spread. Prints a table for each experiment and what the goals came to;
writes every run's numbers with machine, versions and command to `results/`. Exit 1 when an answer was wrong.
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
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, get_args

from benchmarks.measure import generator, machine
from benchmarks.plan import PARTS, Experiment, Wishes, experiments
from benchmarks.report import Goal, Run, goals, table
from benchmarks.systems import builds, catalogue, whole
from benchmarks.systems.system import Pinning, Running, alive, pin_running, remove, start
from gateway.http.server import ServerName
from tollgate.errors import OperationalError, TollgateError

RESULTS: Final = Path(__file__).with_name("results")
_QUIET_TIMEOUT_S: Final = 3.0
_POLLED: Final = 20_000
_WRONG: Final = ("malformed", "mismatched", "write")


class Bench:
    """Runs experiments against what runs, and keeps what came out."""

    def __init__(self, loadgen: Path, seed: int, pinning: Pinning) -> None:
        self._loadgen = loadgen
        self._rng = random.Random(seed)
        self.pinning = pinning
        self._polled: dict[str, int] = {}  # system → seed of the payments that are there to be polled
        self.results: dict[Experiment, list[Run]] = {}

    def run(self, experiment: Experiment, running: dict[str, Running]) -> None:
        runs = self.results.setdefault(experiment, [])
        if experiment.load.kind == "get":
            for name in experiment.systems:
                self._create_polled(running[name])
        for number, name in experiment.order(self._rng):
            runs.append(self._measure(experiment, number, running[name]))
            print(".", end="", file=sys.stderr, flush=True)
        print("\r", end="", file=sys.stderr)
        print(table(experiment, runs), end="\n\n", flush=True)

    def _create_polled(self, running: Running) -> None:
        name, target = running.system.name, running.system.target
        if name not in self._polled and target.holds_ids:
            seed = self._rng.getrandbits(63)
            generator.create(self._loadgen, target, seed=seed, count=_POLLED)
            self._polled[name] = seed

    def _measure(self, experiment: Experiment, number: int, running: Running) -> Run:
        system, load = running.system, experiment.load
        fresh = self._rng.getrandbits(63)
        seed = self._polled.get(system.name, fresh) if load.kind == "get" else fresh
        idle = machine.await_quiet(_QUIET_TIMEOUT_S)
        before = machine.cpu_seconds(running.server_pids), machine.cpu_seconds(running.front_pids)
        result = generator.run(
            self._loadgen, load, system.target, seed=seed, ids=_POLLED, cpus=self.pinning.rest
        )
        after = machine.cpu_seconds(running.server_pids), machine.cpu_seconds(running.front_pids)
        if not alive(running):
            raise OperationalError(f"{system.name} did not survive {experiment.name}. Its log says why.")
        # The warm-up's requests cost CPU too and are not among those counted.
        answers = max(1.0, result.per_second * (load.seconds + load.warm_up_s))
        server, front = ((late - early) / answers * 1e6 for early, late in zip(before, after, strict=True))
        return Run(system.name, number, result, idle, server, front)

    @property
    def wrong_answers(self) -> int:
        failures = [run.result.failures for runs in self.results.values() for run in runs]
        return sum(counts[name] for counts in failures for name in _WRONG)


async def bench_all(bench: Bench, planned: list[Experiment], setup: catalogue.Setup) -> None:
    """First all but the whole stack, then the whole stack beside the floor, with nothing else there."""
    everything = [experiment for experiment in planned if experiment.part == "everything"]
    rest = [experiment for experiment in planned if experiment.part != "everything"]
    for phase in (rest, everything):
        needed = {name for experiment in phase for name in experiment.systems}
        systems = [system for name, system in catalogue.systems(setup).items() if name in needed]
        stacks = [stack for stack in _stacks(setup) if stack.name in needed]
        async with AsyncExitStack() as processes:
            running = {found.system.name: found for found in await start(processes, systems, bench.pinning)}
            for stack in stacks:
                running[stack.name] = processes.enter_context(whole.running(stack))
                pin_running(running[stack.name], bench.pinning)
            for experiment in phase:
                bench.run(experiment, running)


def _stacks(setup: catalogue.Setup) -> tuple[whole.Stack, ...]:
    """One shard with its tailer, as the systems beside it have one server; and what `tollgate up` starts."""
    folder, base = setup.folder, setup.port_base
    return (
        whole.Stack(whole.SHIPPING, folder / "shipping", base + 50, base + 200, 1, 0, setup.server),
        whole.Stack(whole.EVERYTHING, folder / "everything", base + 51, base + 400, 2, 1, setup.server),
    )


def _wishes(arguments: argparse.Namespace) -> Wishes:
    if arguments.quick:
        return Wishes(tuple(arguments.only), 1, 1, 1.0, (32,), (2000.0,))
    return Wishes(
        parts=tuple(arguments.only),
        rounds=arguments.rounds,
        rounds_other=min(arguments.rounds, arguments.rounds_other),
        seconds=arguments.seconds,
        connections=tuple(arguments.connections),
        rates=tuple(arguments.rates),
    )


def _names(setup: catalogue.Setup, wanted: list[str]) -> list[str]:
    """Every system whose name holds one of `wanted`; all of them when nothing is wanted."""
    names = [*catalogue.systems(setup), *(stack.name for stack in _stacks(setup))]
    return [name for name in names if not wanted or any(part in name for part in wanted)]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-gateway", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="these parts")
    parser.add_argument("--systems", nargs="+", default=[], help="only systems whose names hold one of these")
    parser.add_argument("--rounds", type=int, default=7, help="of what a goal is set on")
    parser.add_argument("--rounds-other", type=int, default=3, help="of the rest")
    parser.add_argument("--seconds", type=float, default=2.0, help="measured in each run")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 32, 128])
    parser.add_argument("--rates", type=float, nargs="+", default=[2000.0, 5000.0, 8000.0])
    parser.add_argument("--quick", action="store_true", help="one short round of each: does it work?")
    parser.add_argument("--server", choices=get_args(ServerName), default="httptools", help="the shard's")
    parser.add_argument("--nginx-workers", type=int, default=1)
    parser.add_argument("--pin-server", type=_cpus, help="cores of the servers, as 0 or 0,1")
    parser.add_argument("--pin-rest", type=_cpus, help="cores of nginx and the generator")
    parser.add_argument("--port-base", type=int, default=26000)
    parser.add_argument("--data-dir", type=Path, default=builds.BUILT, help="on the disk to measure with")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="of orders and ids")
    return parser.parse_args()


def _cpus(text: str) -> frozenset[int]:
    return frozenset(int(number) for number in text.split(","))


def _write(document: dict[str, Any]) -> Path:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"gateway-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def _document(
    bench: Bench, arguments: argparse.Namespace, disk: dict[str, Any], met: list[Goal]
) -> dict[str, Any]:
    return {
        "command": shlex.join(["python", "-m", "benchmarks.bench_gateway", *sys.argv[1:]]),
        "seed": arguments.seed,
        "server": arguments.server,
        "nginx_workers": arguments.nginx_workers,
        "machine": machine.describe(),
        "disk": disk,
        "goals": [goal.document() for goal in met],
        "experiments": [
            {
                "part": experiment.part,
                "name": experiment.name,
                "load": asdict(experiment.load),
                "runs": [run.document() for run in runs],
            }
            for experiment, runs in bench.results.items()
        ],
    }


def main() -> int:
    arguments = _arguments()
    arguments.data_dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=arguments.data_dir.resolve()))
    folder.chmod(0o755)  # PostgreSQL and nginx's workers run as another user when root starts them
    try:
        disk = {"file_system": machine.check_disk(folder), "fdatasync_ms_before": machine.fsync_ms(folder)}
        setup = catalogue.new_setup(folder, arguments.port_base, arguments.nginx_workers, arguments.server)
        catalogue.check_ports(setup)
        names = _names(setup, arguments.systems)
        if builds.go_peer() is None:
            print("There is no Go here: the Go peer is left out.\n")
        bench = Bench(builds.loadgen(), arguments.seed, Pinning(arguments.pin_server, arguments.pin_rest))
        asyncio.run(bench_all(bench, experiments(_wishes(arguments), names), setup))
        disk["fdatasync_ms_after"] = machine.fsync_ms(folder)
    except TollgateError as error:
        print(f"bench-gateway: {error.message}\nThe logs are in {folder}.", file=sys.stderr)
        return 1
    remove(folder)
    met = goals(bench.results)
    print("\n".join(str(goal) for goal in met))
    print(f"\nRaw numbers: {_write(_document(bench, arguments, disk, met))}")
    if bench.wrong_answers:
        print(f"{bench.wrong_answers} answers were wrong: no number above counts.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
