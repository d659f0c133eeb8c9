"""Three times what the gateway can carry, for a minute: `make bench-overload`.

One shard behind nginx. First its capacity, in a closed loop; then an open loop at a multiple of it, while
/livez and /readyz are asked every 100 ms on new connections, refusals are read in full, and memory is noted
every second. Prints what was carried, how long the accepted waited, and how each promise of decision 11 came
out; writes raw numbers to `results/`. Exit 1 when a promise was broken.
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
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.measure import generator, machine
from benchmarks.measure.generator import Load, Result, latency_ms
from benchmarks.measure.observers import Observations, observing
from benchmarks.systems import builds, catalogue
from benchmarks.systems.system import Pinning, Running, alive, remove, start
from tollgate.errors import OperationalError, TollgateError

RESULTS: Final = Path(__file__).with_name("results")
CAPACITY_CONNECTIONS: Final = 128
# 512 requests under way and a few more in sockets, at half of a slow machine's capacity; and the probes share
# the cores with the load.
ACCEPTED_P99_MS: Final = 300.0
GOODPUT_MIN: Final = 0.5
PROBE_MAX_MS: Final = 1000.0
MEMORY_DRIFT_MAX: Final = 0.10
_QUIET_TIMEOUT_S: Final = 10.0
_WRONG: Final = ("malformed", "mismatched", "write", "closed")


@dataclass(frozen=True)
class Wishes:
    """`rate` None: `times` the capacity, which is measured first."""

    seconds: float
    connections: int
    times: float = 3.0
    rate: float | None = None
    capacity_s: float = 4.0
    warm_up_s: float = 0.0  # of the same overload, until memtables and caches have had their fill


@dataclass(frozen=True)
class Outcome:
    idle_before: float
    capacity: float
    capacity_after: float  # a machine that has something else to do meanwhile shows here
    rate: float
    result: Result
    observed: Observations

    @property
    def goodput(self) -> float:
        return self.result.post.count / self.result.measured_s

    def broken(self) -> list[str]:
        """One sentence for each promise that was not kept."""
        result, observed = self.result, self.observed
        p99 = (result.post.percentile_ns(99) or 0) / 1e6
        unexpected = set(result.statuses) - {"202", "503", "429"}
        wrong = {name: count for name, count in result.failures.items() if count and name in _WRONG}
        checks = (
            (p99 > ACCEPTED_P99_MS, f"the accepted waited {p99:.1f} ms (p99), not {ACCEPTED_P99_MS:g}"),
            (
                self.goodput < GOODPUT_MIN * min(self.capacity, self.capacity_after),
                f"only {self.goodput:.0f}/s were accepted",
            ),
            (bool(unexpected), f"statuses {sorted(unexpected)} are neither accepted nor refused"),
            (bool(wrong), f"answers were broken: {wrong}"),
            (bool(observed.ill_formed), f"refusals were ill-formed: {observed.ill_formed[:3]}"),
            (observed.slowest_ms > PROBE_MAX_MS, f"/livez or /readyz took {observed.slowest_ms:.0f} ms"),
            (bool(observed.unanswered), f"/livez or /readyz did not answer: {observed.unanswered[:3]}"),
            (observed.drift > MEMORY_DRIFT_MAX, f"memory went {observed.drift:.0%} from its median"),
        )
        return [sentence for is_broken, sentence in checks if is_broken]

    def document(self) -> dict[str, Any]:
        return {
            "idle_before": round(self.idle_before, 3),
            "capacity_per_second": round(self.capacity, 1),
            "capacity_after_per_second": round(self.capacity_after, 1),
            "offered_per_second": round(self.rate, 1),
            "accepted_per_second": round(self.goodput, 1),
            "accepted_latency_ms": latency_ms(self.result.post),
            "other_latency_ms": latency_ms(self.result.other),
            "observed": self.observed.document(),
            "broken": self.broken(),
            "generator": self.result.document(),
        }

    def __str__(self) -> str:
        result, observed = self.result, self.observed
        share = f" ({self.goodput / self.capacity:.0%})" if self.capacity else ""
        lines = [
            f"capacity {self.capacity:.0f}/s before, {self.capacity_after:.0f}/s after, "
            f"offered {self.rate:.0f}/s, accepted {self.goodput:.0f}/s{share}",
            f"accepted, ms: {_written(latency_ms(result.post))}",
            f"the rest, ms: {_written(latency_ms(result.other))}",
            f"statuses {dict(result.statuses)}, codes of samples {observed.codes}, failures "
            f"{ {name: count for name, count in result.failures.items() if count} }, unsent {result.unsent}",
            *(f"{name}, ms: {_written(found)}" for name, found in observed.probe_latency_ms().items()),
            *(
                f"{name}: {' '.join(f'{mib:.0f}' for mib in found)} MiB"
                for name, found in observed.mib.items()
            ),
        ]
        return "\n".join(lines)


def _written(latency: dict[str, float] | None) -> str:
    return " ".join(f"{name} {value:.2f}" for name, value in latency.items()) if latency else "none"


async def overload(loadgen: Path, running: Running, shard: str, wishes: Wishes) -> Outcome:
    """Raises OperationalError when the gateway did not survive."""
    target, rng = running.system.target, random.Random()
    rate, before, after, idle = wishes.rate, 0.0, 0.0, 0.0

    def capacity() -> float:
        closed = Load("post", CAPACITY_CONNECTIONS, wishes.capacity_s)
        return generator.run(loadgen, closed, target, seed=rng.getrandbits(63)).per_second

    if rate is None:
        idle = machine.await_quiet(_QUIET_TIMEOUT_S)
        before = capacity()
        rate = before * wishes.times
    if wishes.warm_up_s:
        warm_up = Load("post", wishes.connections, wishes.warm_up_s, rate, warm_up_s=1.0)
        await asyncio.to_thread(generator.run, loadgen, warm_up, target, seed=rng.getrandbits(63))
    load = Load("post", wishes.connections, wishes.seconds, rate, warm_up_s=1.0)
    pids = {"shard": running.server_pids, "nginx": running.front_pids}
    with observing(target, {"nginx": target.address, "shard": shard}, pids) as observed:
        result = await asyncio.to_thread(generator.run, loadgen, load, target, seed=rng.getrandbits(63))
    if not alive(running):
        raise OperationalError("The gateway did not survive. Its log says why.")
    if wishes.rate is None:
        after = capacity()
    return Outcome(idle, before, after, rate, result, observed)


async def _bench(setup: catalogue.Setup, wishes: Wishes) -> Outcome:
    system = catalogue.systems(setup)[catalogue.SHARD_NGINX]
    async with AsyncExitStack() as processes:
        [running] = await start(processes, [system], Pinning())
        return await overload(builds.loadgen(), running, setup.port("shard"), wishes)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--times", type=float, default=3.0, help="the capacity")
    parser.add_argument("--rate", type=float, help="in place of a multiple of the capacity")
    parser.add_argument("--connections", type=int, default=2048)
    parser.add_argument("--nginx-workers", type=int, default=1)
    parser.add_argument("--port-base", type=int, default=26600)
    parser.add_argument("--data-dir", type=Path, default=builds.BUILT, help="on the disk to measure with")
    return parser.parse_args()


def main() -> int:
    arguments = _arguments()
    arguments.data_dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="overload-", dir=arguments.data_dir.resolve()))
    folder.chmod(0o755)  # nginx's workers run as another user when root starts them
    wishes = Wishes(arguments.seconds, arguments.connections, arguments.times, arguments.rate, warm_up_s=60.0)
    try:
        disk = {"file_system": machine.check_disk(folder), "fdatasync_ms": machine.fsync_ms(folder)}
        setup = catalogue.new_setup(folder, arguments.port_base, arguments.nginx_workers, "httptools")
        catalogue.check_ports(setup)
        outcome = asyncio.run(_bench(setup, wishes))
    except TollgateError as error:
        print(f"bench-overload: {error.message}\nThe logs are in {folder}.", file=sys.stderr)
        return 1
    remove(folder)
    print(outcome)
    at = datetime.now(UTC)
    path = RESULTS / f"overload-{at:%Y%m%dT%H%M%SZ}.json"
    document = {
        "at": at.isoformat(timespec="seconds"),
        "command": shlex.join(["make", "bench-overload", f"ARGS={shlex.join(sys.argv[1:])}"]),
        "machine": machine.describe(),
        "disk": disk,
        **outcome.document(),
    }
    path.write_text(json.dumps(document, indent=1) + "\n")
    print(f"\nRaw numbers: {path}")
    for sentence in outcome.broken():
        print(f"Broken: {sentence}.", file=sys.stderr)
    return 1 if outcome.broken() else 0


if __name__ == "__main__":
    sys.exit(main())
