"""How long an idle payment takes from its 202 to `succeeded`, and where the time goes. Run by `make bench`.

One payment at a time, each polled every 5 ms, on a stack that does nothing else: a running one (--data-dir),
or one of its own, started and stopped here. Prints p50, p90 and max beside the goal and the median of every
hop; writes the raw numbers with machine, versions and command. Exit 1 when the median misses the goal.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import psutil

from tollgate.cli.pay_client import Paid, PayClient, Polling
from tollgate.cli.pay_orders import generate_orders
from tollgate.cli.pay_report import Percentiles, percentiles
from tollgate.cli.pay_timeline import Hop, in_order, read_hops, simulator_hops
from tollgate.cli.pay_witnesses import read_ledger
from tollgate.clock import SystemClock
from tollgate.local.stack_json import StackJson, read_stack_json

GOAL_MS: Final = 300.0
POLLING: Final = Polling(first_s=0.005, max_s=0.005)
WARM_UP: Final = 5  # the first payments open connections, plan statements and fill caches
PAUSE_S: Final = 0.05  # idle means that the one before has come to rest everywhere
RESULTS: Final = Path(__file__).with_name("results")
PACKAGES: Final = (
    "tollgate",
    "granian",
    "rocksdict",
    "confluent-kafka",
    "asyncpg",
    "aiohttp",
    "grpcio",
    "uvloop",
)


async def measure(stack: StackJson, count: int) -> tuple[list[Paid], list[list[Hop]]]:
    """`count` payments after the warm-up, and the hops of each."""
    rng = random.Random()
    orders = generate_orders(
        WARM_UP + count, rng, amount=1234, currency="EUR", payment_method="pm_ok", capture="automatic"
    )
    client = PayClient(
        stack.base_url,
        stack.api_key,
        concurrency=1,
        timeout_s=60,
        polling=POLLING,
        clock=SystemClock(),
        rng=rng,
    )
    paid = []
    async with client:
        for order in orders:
            paid.append(await client.pay(order, lambda _paid, _after_s: None))
            await asyncio.sleep(PAUSE_S)
    measured = paid[WARM_UP:]
    wrong = [
        f"{one.order.checkout_id}: {one.payment.get('status')} {one.refusal}"
        for one in measured
        if not _good(one)
    ]
    if wrong:
        raise SystemExit("These payments did not succeed: " + "; ".join(wrong[:5]))
    ledger = await read_ledger(stack.psp_simulator_url, measured[0].sent_at_us)
    return measured, [await _hops(stack, one, ledger) for one in measured]


def _good(paid: Paid) -> bool:
    return paid.ended_after_s is not None and paid.payment["status"] == "succeeded"


async def _hops(stack: StackJson, paid: Paid, ledger: dict[str, Any]) -> list[Hop]:
    checkout_id = paid.order.checkout_id
    inside = await read_hops(stack.postgres_dsn, stack.merchant, checkout_id)
    at_psp = simulator_hops(ledger, stack.merchant, checkout_id)
    seen_at_us = paid.sent_at_us + round((paid.ended_after_s or 0) * 1_000_000)
    return in_order(
        [Hop(paid.sent_at_us, "sent"), *inside, *at_psp, Hop(seen_at_us, "succeeded, seen by polling")]
    )


def hop_medians(payments: list[list[Hop]]) -> dict[str, float]:
    """Milliseconds from the hop before, in the order in which they mostly came; the last of each name."""
    gaps: dict[str, list[float]] = {}
    since_start: dict[str, list[int]] = {}
    for hops in payments:
        last = {hop.what: (before, hop) for before, hop in pairwise(hops)}
        for name, (before, hop) in last.items():
            gaps.setdefault(name, []).append((hop.at_us - before.at_us) / 1000)
            since_start.setdefault(name, []).append(hop.at_us - hops[0].at_us)
    order = sorted(gaps, key=lambda name: statistics.median(since_start[name]))
    return {name: round(statistics.median(gaps[name]), 2) for name in order}


@contextmanager
def running_stack(arguments: argparse.Namespace) -> Iterator[StackJson]:
    """The stack of --data-dir, or one of its own for the time of the body."""
    if arguments.data_dir is not None:
        yield _read(arguments.data_dir)
        return
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as folder:
        Path(folder).chmod(0o755)  # Postgres runs as another user when this is root
        command = (sys.executable, "-m", "tollgate.cli.main")
        ports = ("--port", str(arguments.port), "--port-base", str(arguments.port_base))
        try:
            subprocess.run(
                [*command, "up", "--detach", "--data-dir", folder, *ports], check=True, timeout=180
            )
            yield _read(Path(folder))
        finally:
            subprocess.run([*command, "down", "--data-dir", folder], check=False, timeout=60)


def _read(folder: Path) -> StackJson:
    stack = read_stack_json(folder / "stack.json")
    if stack is None or not stack.shards:
        raise SystemExit("No stack runs there. Start one with `tollgate up`, or leave --data-dir out.")
    return stack


def machine() -> dict[str, Any]:
    model = platform.processor()
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        names = [
            line.partition(":")[2].strip()
            for line in cpuinfo.read_text().splitlines()
            if "model name" in line
        ]
        model = names[0] if names else model
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_1m": round(os.getloadavg()[0], 2),
    }


def write_result(
    arguments: argparse.Namespace, times: Percentiles, hops: dict[str, float], raw_ms: list[float]
) -> Path:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "idle_latency.json"
    whose = "a running stack" if arguments.data_dir is not None else "a stack of its own"
    result = {
        "benchmark": "idle payment, from 202 to succeeded as seen by polling every 5 ms",
        "command": f"python benchmarks/idle_latency.py --count {arguments.count}, on {whose}",
        "machine": machine(),
        "versions": {name: version(name) for name in PACKAGES},
        "goal_p50_ms": GOAL_MS,
        "p50_ms": times.p50,
        "p90_ms": times.p90,
        "max_ms": times.max,
        "hop_median_ms": hops,
        "raw_ms": raw_ms,
    }
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--data-dir", type=Path, help="a running stack's folder; without it one is started")
    parser.add_argument("--port", type=int, default=18080)
    parser.add_argument("--port-base", type=int, default=17070)
    arguments = parser.parse_args()
    with running_stack(arguments) as stack:
        paid, hops = asyncio.run(measure(stack, arguments.count))
    seconds = [(one.ended_after_s or 0) - (one.accepted_after_s or 0) for one in paid]
    times, medians = percentiles(seconds), hop_medians(hops)
    path = write_result(arguments, times, medians, [round(value * 1000, 3) for value in seconds])
    met = times.p50 is not None and times.p50 < GOAL_MS
    print(
        f"{len(paid)} idle payments, 202 to succeeded: p50 {times.p50}, p90 {times.p90}, max {times.max} ms"
    )
    print(f"The goal of p50 < {GOAL_MS:g} ms is {'met' if met else 'MISSED'}. Median after the hop before:")
    for name, milliseconds in medians.items():
        print(f"  {milliseconds:8.2f} ms  {name}")
    print(f"Raw numbers: {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path.name}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
