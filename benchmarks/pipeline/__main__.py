"""Accept to terminal with everything on this machine: `make bench-pipeline`.

Starts a stack of its own, posts an open loop through nginx for a minute, and looks now and then how many
payments are accepted and not yet terminal. Afterwards: percentiles of every hop, the sustained rate, what a
payment cost each part in CPU, and beside it the limits (outcomes into Postgres in batches, the PSP simulator
alone). Exit 1 when a payment did not succeed. Raw numbers go to `results/`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import asyncpg

from benchmarks.measure import generator, machine
from benchmarks.measure.generator import Load, Result, Target
from benchmarks.pipeline import hops, limits
from benchmarks.systems import builds, whole
from benchmarks.systems.system import remove
from tollgate.errors import OperationalError, TollgateError
from tollgate.local.stack_json import StackJson, read_stack_json

RESULTS: Final = Path(__file__).resolve().parents[1] / "results"
GOAL_PER_SECOND: Final = 1_000.0
_CONNECTIONS: Final = 32
_WARM_UP_S: Final = 3.0
_LOOK_S: Final = 5.0  # it reads every payment: 35 ms of CPU for 60,000, which count as Postgres'
_LOOK_AGAIN_S: Final = 1.0  # once nothing more is posted
_DRAIN_S: Final = 120.0


@dataclass
class Measured:
    posted: Result
    accepted: int
    spreads: dict[str, hops.Spread]
    cpu_us: dict[str, float]  # of each part, a payment
    drained_s: float  # from the end of the load until the last was terminal
    sustained: float  # terminal a second from the end of the warm-up to the end of the load
    behind: list[tuple[float, int, int]] = field(default_factory=list)  # seconds, ingested, succeeded
    memory_mib: list[dict[str, float]] = field(default_factory=list)


async def run(stack: StackJson, load: Load, target: Target, seed: int) -> Measured:
    """Raises OperationalError when accepted payments do not all succeed in time."""
    parts = _pids(stack)
    connection = await asyncpg.connect(stack.postgres_dsn)
    try:
        since = time.time()
        cpu = {name: machine.cpu_seconds(pids) for name, pids in parts.items()}
        posting = asyncio.create_task(
            asyncio.to_thread(generator.run, builds.loadgen(), load, target, seed=seed)
        )
        behind: list[tuple[float, int, int]] = []
        memory: list[dict[str, float]] = []
        while not posting.done():
            await asyncio.wait([posting], timeout=_LOOK_S)
            now = await hops.standing(connection, since)
            behind.append((time.time() - since, now.ingested, now.succeeded))
            memory.append({name: machine.memory_mib(pids) for name, pids in parts.items()})
            print(f"\r{behind[-1][0]:5.0f} s  {now.succeeded} succeeded", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        posted = await posting
        ended = time.time()
        accepted = posted.statuses.get("202", 0)
        drained_s = await _drain(connection, since, ended)
        used = {name: machine.cpu_seconds(pids) - cpu[name] for name, pids in parts.items()}
        everything = (await hops.standing(connection, since)).succeeded
        return Measured(
            posted=posted,
            accepted=accepted,
            spreads=await hops.hops(connection, since + load.warm_up_s),
            cpu_us={name: seconds / everything * 1e6 for name, seconds in used.items()},
            drained_s=drained_s,
            sustained=sustained(behind, load.warm_up_s),
            behind=behind,
            memory_mib=memory,
        )
    finally:
        await connection.close()


def sustained(looks: Sequence[tuple[float, int, int]], warm_up_s: float) -> float:
    """What became terminal a second between the first look after the warm-up and the last."""
    begun_s, _ingested, before = next(look for look in looks if look[0] >= warm_up_s)
    ended_s, _ingested, after = looks[-1]
    return (after - before) / (ended_s - begun_s)


async def _drain(connection: asyncpg.Connection, since: float, ended: float) -> float:
    """Until everything in Postgres is terminal and nothing more comes. Seconds since `ended`."""
    before = None
    while time.time() - ended < _DRAIN_S:
        now = await hops.standing(connection, since)
        if now.otherwise:
            raise OperationalError(f"{now.otherwise} payments ended otherwise than succeeded.")
        if now == before and now.ingested == now.succeeded:
            return time.time() - ended - _LOOK_AGAIN_S
        before = now
        await asyncio.sleep(_LOOK_AGAIN_S)
    raise OperationalError(f"Of {now.ingested} payments {now.succeeded} succeeded within {_DRAIN_S:g} s.")


def _pids(stack: StackJson) -> dict[str, list[int]]:
    parts = {"shards": [shard.pid for shard in stack.shards], "cdc": [cdc.pid for cdc in stack.cdc]}
    parts["processors"] = [processor.pid for processor in stack.processors]
    return parts | {name: [service.pid] for name, service in stack.services.items()}


def table(measured: Measured, load: Load, limit: dict[str, float]) -> str:
    head = f"{'ms':24}" + "".join(f"{f'p{p:g}':>10}" for p in hops.PERCENTS) + f"{'max':>10}"
    lines = [head]
    for name, spread in measured.spreads.items():
        figures = "".join(f"{spread.percentile(p):10.1f}" for p in hops.PERCENTS)
        lines.append(f"{name:24}{figures}{spread.values[-1]:10.1f}")
    lines.append("")
    cpu = sorted(measured.cpu_us.items(), key=lambda part: -part[1])
    lines.append("CPU us a payment: " + ", ".join(f"{name} {us:.0f}" for name, us in cpu))
    lines.append(
        f"{load.rate:g}/s for {load.seconds:g} s: {measured.accepted} accepted, "
        f"{measured.posted.failed} not; {measured.sustained:.0f}/s terminal meanwhile, "
        f"the rest {measured.drained_s:.1f} s later; "
        f"most behind {max(ingested - done for _, ingested, done in measured.behind)} in Postgres"
    )
    for name, a_second in limit.items():
        lines.append(f"limit: {name} {a_second:.0f}/s; the pipeline has {measured.sustained / a_second:.3f}")
    return "\n".join(lines)


def _document(
    measured: Measured, load: Load, limit: dict[str, float], arguments: argparse.Namespace
) -> dict[str, Any]:
    return {
        "command": shlex.join(["python", "-m", "benchmarks.pipeline", *sys.argv[1:]]),
        "seed": arguments.seed,
        "machine": machine.describe(),
        "load": load.name,
        "seconds": load.seconds,
        "accepted": measured.accepted,
        "sustained_per_second": round(measured.sustained, 1),
        "drained_s": round(measured.drained_s, 2),
        "hops_ms": {name: spread.document() for name, spread in measured.spreads.items()},
        "cpu_us_a_payment": {name: round(us, 1) for name, us in measured.cpu_us.items()},
        "limits_per_second": {name: round(value, 1) for name, value in limit.items()},
        "posts": measured.posted.document(),
        "second_ingested_succeeded": [(round(at, 1), *counts) for at, *counts in measured.behind],
        "memory_mib": measured.memory_mib,
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-pipeline", description=__doc__)
    parser.add_argument("--rate", type=float, default=GOAL_PER_SECOND, help="payments a second")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--processors", type=int, default=1)
    parser.add_argument("--port", type=int, default=26590)
    parser.add_argument("--port-base", type=int, default=26670)
    parser.add_argument("--data-dir", type=Path, default=builds.BUILT, help="on the disk to measure with")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    return parser.parse_args()


def _measure(arguments: argparse.Namespace, folder: Path, load: Load) -> tuple[Measured, dict[str, float]]:
    stack = whole.Stack(
        name=whole.EVERYTHING,
        folder=folder / "stack",
        port=arguments.port,
        port_base=arguments.port_base,
        shards=arguments.shards,
        processors=arguments.processors,
        server="httptools",
    )
    with whole.running(stack) as running:
        described = read_stack_json(stack.folder / "stack.json")
        assert described is not None
        limit = {
            "outcomes into Postgres, 100 at a time": asyncio.run(
                limits.outcomes_a_second(described.postgres_dsn)
            ),
            "calls to the simulator, 64 at a time": asyncio.run(
                limits.calls_a_second(described.psp_simulator_url)
            ),
        }
        measured = asyncio.run(run(described, load, running.system.target, arguments.seed))
    return measured, limit


def main() -> int:
    arguments = _arguments()
    arguments.data_dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="pipeline-", dir=arguments.data_dir.resolve()))
    folder.chmod(0o755)  # Postgres and nginx's workers run as another user when root starts them
    load = Load("post", _CONNECTIONS, arguments.seconds, arguments.rate, warm_up_s=_WARM_UP_S)
    try:
        machine.check_disk(folder)
        measured, limit = _measure(arguments, folder, load)
    except TollgateError as error:
        print(f"bench-pipeline: {error.message}\nThe logs are in {folder}.", file=sys.stderr)
        return 1
    remove(folder)
    print(table(measured, load, limit))
    met = measured.sustained >= GOAL_PER_SECOND
    print(f"{'met   ' if met else 'MISSED'}  {GOAL_PER_SECOND:g}/s sustained: {measured.sustained:.0f}/s")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"pipeline-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps(_document(measured, load, limit, arguments), indent=1) + "\n")
    print(f"Raw numbers: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
