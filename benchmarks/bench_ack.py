"""What a 202 costs that waits for Kafka: ack=replicated beside ack=durable, in one run: `make bench-ack`.

Two stacks of one shard with its tailer and a Kafka each, no processor, run side by side; each rate is offered
to both once a round, in a shuffled order, after waiting for the machine to be quiet. Open loop through nginx:
latency counts from when a request was due. Prints a table for each rate and the ratios of the medians; writes
every run's numbers with machine, versions and command to `results/`. Exit 1 when an answer was wrong.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.bench_gateway import RESULTS, Bench
from benchmarks.measure import machine
from benchmarks.measure.generator import Load
from benchmarks.measure.ratios import written
from benchmarks.plan import Experiment
from benchmarks.report import Run, compare, p99_ms
from benchmarks.systems import builds, whole
from benchmarks.systems.system import Pinning, remove
from tollgate.errors import TollgateError

DURABLE: Final = "ack=durable"
REPLICATED: Final = "ack=replicated"
_CONNECTIONS: Final = 256


def bench_all(bench: Bench, arguments: argparse.Namespace, folder: Path) -> None:
    base = arguments.port_base
    stacks = [
        whole.Stack(DURABLE, folder / "durable", base, base + 100, 1, 0, "httptools", "durable"),
        whole.Stack(REPLICATED, folder / "replicated", base + 1, base + 300, 1, 0, "httptools", "replicated"),
    ]
    with ExitStack() as processes:
        running = {stack.name: processes.enter_context(whole.running(stack)) for stack in stacks}
        for rate in arguments.rates:
            load = Load("post", _CONNECTIONS, arguments.seconds, rate)
            bench.run(Experiment("ack", load, (DURABLE, REPLICATED), arguments.rounds), running)


def p50_ms(run: Run) -> float:
    return (run.result.latency.percentile_ns(50) or 0) / 1e6


def summary(results: dict[Experiment, list[Run]]) -> str:
    lines = []
    for experiment, runs in results.items():
        ratios = [
            f"{name} {written(compare(runs, REPLICATED, DURABLE, value), lambda ratio: f'{ratio:.1f}')}"
            for name, value in (("p50", p50_ms), ("p99", p99_ms))
        ]
        lines.append(f"{experiment.load.name}: replicated / durable, {', '.join(ratios)}")
    return "\n".join(lines)


def _document(bench: Bench, arguments: argparse.Namespace, disk: dict[str, Any]) -> dict[str, Any]:
    return {
        "command": shlex.join(["python", "-m", "benchmarks.bench_ack", *sys.argv[1:]]),
        "seed": arguments.seed,
        "machine": machine.describe(),
        "disk": disk,
        "experiments": [
            {
                "name": experiment.name,
                "load": asdict(experiment.load),
                "runs": [run.document() for run in runs],
            }
            for experiment, runs in bench.results.items()
        ],
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-ack", description=__doc__)
    parser.add_argument("--rates", type=float, nargs="+", default=[20.0, 500.0, 2000.0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0, help="measured in each run")
    parser.add_argument("--port-base", type=int, default=27000)
    parser.add_argument("--data-dir", type=Path, default=builds.BUILT, help="on the disk to measure with")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="of orders and ids")
    return parser.parse_args()


def main() -> int:
    arguments = _arguments()
    arguments.data_dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=arguments.data_dir.resolve()))
    folder.chmod(0o755)  # nginx's workers run as another user when root starts them
    bench = None
    try:
        disk = {"file_system": machine.check_disk(folder), "fdatasync_ms": machine.fsync_ms(folder)}
        bench = Bench(builds.loadgen(), arguments.seed, Pinning())
        bench_all(bench, arguments, folder)
    except TollgateError as error:
        print(f"bench-ack: {error.message}\nThe logs are in {folder}.", file=sys.stderr)
        return 1
    remove(folder)
    print(summary(bench.results))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"ack-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps(_document(bench, arguments, disk), indent=1) + "\n")
    print(f"\nRaw numbers: {path}")
    if bench.wrong_answers:
        print(f"{bench.wrong_answers} answers were wrong: no number above counts.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
