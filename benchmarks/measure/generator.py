"""Runs the load generator (benchmarks/loadgen) and reads what it says.

A result is checked before it is believed: every request that was due is accounted for exactly once.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from benchmarks.measure.histogram import Histogram, merge, read
from tollgate.errors import OperationalError

PAYMENT: Final = Path(__file__).resolve().parents[1] / "loadgen" / "payment.json"
PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)
_GRACE_S: Final = 30.0
_DRAIN_S: Final = 5.0

Kind = Literal["post", "get", "mixed"]


@dataclass(frozen=True)
class Load:
    """Closed loop when `rate` is None: each connection sends as soon as it is answered.

    Open loop otherwise: `rate` requests a second are due at fixed times, and latency counts from then.
    """

    kind: Kind
    connections: int
    seconds: float
    rate: float | None = None
    warm_up_s: float = 0.3

    @property
    def name(self) -> str:
        loop = f"{self.connections} connections" if self.rate is None else f"{self.rate:g}/s"
        return f"{self.kind.upper() if self.kind != 'mixed' else '1 POST : 5 GET'}, {loop}"


@dataclass(frozen=True)
class Target:
    """Where a load goes. `api_key` is sent; `holds_ids` when answers repeat the payment's id."""

    address: str
    api_key: str
    holds_ids: bool = True


@dataclass(frozen=True)
class Result:
    """`expected` are the latencies of 202 to a POST and 200 to a GET; `other` of all else, failures too."""

    started: int
    completed: int
    measured_s: float
    busy_s: float
    cpu_s: float
    waited: int
    unsent: int
    unanswered: int
    reconnects: int
    statuses: Mapping[str, int]
    failures: Mapping[str, int]
    post: Histogram
    get: Histogram
    other: Histogram
    lag: Histogram

    @property
    def per_second(self) -> float:
        """Answers of the expected kind a second."""
        if self.measured_s == 0 or self.started == 0:
            return 0.0
        expected = self.post.count + self.get.count
        return self.completed / self.measured_s * expected / (expected + self.other.count)

    @property
    def latency(self) -> Histogram:
        """Of everything that was due, whatever became of it: a refusal or a loss is not left out."""
        return merge((self.post, self.get, self.other))

    @property
    def busy(self) -> float:
        """The share of the time that the generator was not waiting: near 1 it measured itself."""
        return self.busy_s / self.measured_s if self.measured_s else 0.0

    @property
    def failed(self) -> int:
        return self.other.count

    def document(self) -> dict[str, Any]:
        """Raw numbers for a result file; latencies in milliseconds."""
        return {
            "per_second": round(self.per_second, 1),
            "started": self.started,
            "measured_s": round(self.measured_s, 3),
            "latency_ms": latency_ms(self.latency),
            "get_latency_ms": latency_ms(self.get),
            "generator": {
                "busy": round(self.busy, 4),
                "cpu_s": self.cpu_s,
                "lag_ms": latency_ms(self.lag),
                "waited_for_a_connection": self.waited,
            },
            "statuses": dict(self.statuses),
            "failures": {name: count for name, count in self.failures.items() if count},
            "unsent": self.unsent,
            "unanswered": self.unanswered,
            "reconnects": self.reconnects,
        }


def latency_ms(histogram: Histogram) -> dict[str, float] | None:
    if not histogram.count:
        return None
    named = {f"p{percent:g}": (histogram.percentile_ns(percent) or 0) / 1e6 for percent in PERCENTILES}
    return {**named, "max": histogram.max_ns / 1e6}


def parse(document: dict[str, Any]) -> Result:
    """Raises ValueError when requests are missing from the account, or are in it twice."""
    result = Result(
        started=document["started"],
        completed=document["completed"],
        measured_s=document["measured_ns"] / 1e9,
        busy_s=document["busy_ns"] / 1e9,
        cpu_s=document["cpu_s"],
        waited=document["waited"],
        unsent=document["unsent"],
        unanswered=document["unanswered"],
        reconnects=document["reconnects"],
        statuses=document["statuses"],
        failures=document["failures"],
        post=read(document["post"]),
        get=read(document["get"]),
        other=read(document["other"]),
        lag=read(document["lag"]),
    )
    due, seen = result.started + result.unsent, result.latency.count
    if due != seen:
        raise ValueError(f"{due} requests were due and {seen} are accounted for")
    return result


def run(
    generator: Path,
    load: Load,
    target: Target,
    *,
    seed: int,
    ids: int = 0,
    cpus: frozenset[int] | None = None,
) -> Result:
    """Blocks for the time of `load`. `ids`: payments 0 … ids-1 of `seed` are there to be polled.

    Raises OperationalError when the generator could not do it.
    """
    arguments = [
        *("--load", load.kind, "--connections", str(load.connections)),
        *("--seconds", f"{load.seconds:g}", "--warm-up", f"{load.warm_up_s:g}", "--drain", f"{_DRAIN_S:g}"),
        *_common(target, seed),
    ]
    if load.rate is not None:
        arguments += ["--rate", f"{load.rate:g}"]
    if load.kind == "get":
        arguments += ["--ids", str(ids)]
    return _execute(generator, arguments, load.seconds + load.warm_up_s, cpus)


def create(generator: Path, target: Target, *, seed: int, count: int, connections: int = 64) -> None:
    """POSTs payments 0 … count-1 of `seed`. Raises OperationalError unless every one was accepted."""
    arguments = [
        "--load",
        "post",
        "--connections",
        str(connections),
        "--seconds",
        "60",
        "--count",
        str(count),
    ]
    result = _execute(generator, [*arguments, *_common(target, seed)], 60)
    if result.post.count != count:
        raise OperationalError(
            f"Of {count} payments that {target.address} was to create, {result.post.count} were accepted: "
            f"{dict(result.statuses)}, {dict(result.failures)}."
        )


def _common(target: Target, seed: int) -> list[str]:
    common = ["--to", target.address, "--seed", str(seed), "--body", str(PAYMENT)]
    common += ["--header", f"Authorization: Bearer {target.api_key}"]
    return common if target.holds_ids else [*common, "--any-body"]


def _execute(
    generator: Path, arguments: list[str], seconds: float, cpus: frozenset[int] | None = None
) -> Result:
    process = subprocess.Popen(
        [str(generator), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        if cpus is not None:
            os.sched_setaffinity(process.pid, cpus)  # it has one thread
        stdout, stderr = process.communicate(timeout=seconds + _DRAIN_S + _GRACE_S)
    finally:
        process.kill()
        process.wait()
    if process.returncode != 0:
        raise OperationalError(stderr.strip() or "The load generator failed and gave no reason.")
    return parse(json.loads(stdout))
