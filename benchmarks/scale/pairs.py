"""The same load for the empty and the filled shard, in pairs; what counts is the ratio within a pair."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.measure import generator, machine
from benchmarks.measure.generator import PERCENTILES, Load, Result
from benchmarks.measure.ratios import Spread, ratios, spread, written
from benchmarks.scale.shards import Shard

CONNECTIONS: Final = 256
_QUIET_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True)
class Pair:
    """One round. The order within it is drawn anew each time."""

    empty: Result
    filled: Result
    resident_mib: float  # of the filled shard, after it
    empty_cpu_us: float  # an answer, compaction included: what a busy machine changes least
    filled_cpu_us: float


@dataclass(frozen=True)
class Measured:
    load: Load
    pairs: Sequence[Pair]

    def ratio(self, percent: float) -> Spread | None:
        """How many times the empty shard's percentile the filled shard's is."""
        return ratios(
            {number: _ms(pair.filled, percent) for number, pair in enumerate(self.pairs)},
            {number: _ms(pair.empty, percent) for number, pair in enumerate(self.pairs)},
        )

    @property
    def failed(self) -> int:
        return sum(pair.empty.failed + pair.filled.failed for pair in self.pairs)

    def __str__(self) -> str:
        lines = [
            f"{self.load.name}, {len(self.pairs)} pairs of {self.load.seconds:g} s, {self.failed} failed"
        ]
        for percent in PERCENTILES:
            empty = spread([_ms(pair.empty, percent) for pair in self.pairs])
            filled = spread([_ms(pair.filled, percent) for pair in self.pairs])
            lines.append(
                f"  p{percent:<5g} empty {written(empty, _two_digits):>22} ms   filled "
                f"{written(filled, _two_digits):>22} ms   ratio {written(self.ratio(percent), _two_digits)}"
            )
        empty = spread([pair.empty_cpu_us for pair in self.pairs])
        filled = spread([pair.filled_cpu_us for pair in self.pairs])
        ratio = spread([pair.filled_cpu_us / pair.empty_cpu_us for pair in self.pairs])
        lines.append(
            f"  CPU    empty {written(empty, _one_digit):>22} us   filled "
            f"{written(filled, _one_digit):>22} us   ratio {written(ratio, _two_digits)}"
        )
        return "\n".join(lines)

    def document(self) -> dict[str, Any]:
        return {
            "load": self.load.name,
            "seconds": self.load.seconds,
            "pairs": [
                {
                    "empty": pair.empty.document(),
                    "filled": pair.filled.document(),
                    "resident_mib": pair.resident_mib,
                    "cpu_us": {"empty": pair.empty_cpu_us, "filled": pair.filled_cpu_us},
                }
                for pair in self.pairs
            ],
        }


def measure(
    loadgen: Path,
    load: Load,
    empty: Shard,
    filled: Shard,
    *,
    rounds: int,
    rng: random.Random,
    polled: Mapping[str, tuple[int, int]],
) -> Measured:
    """`polled`: for a GET, each shard's seed and how many of its payments there are."""
    pairs = []
    for _ in range(rounds):
        results: dict[str, Result] = {}
        cpu_us: dict[str, float] = {}
        for shard in rng.sample((empty, filled), 2):
            if load.kind == "get":
                shard.warm_pages()  # each time: some kernels take back what was not read for a minute
            machine.await_quiet(_QUIET_TIMEOUT_S)
            before = shard.cpu_s()
            seed, ids = polled[shard.name] if load.kind == "get" else (rng.getrandbits(63), 0)
            result = generator.run(loadgen, load, shard.target, seed=seed, ids=ids)
            answers = max(1.0, result.per_second * (load.seconds + load.warm_up_s))
            results[shard.name] = result
            cpu_us[shard.name] = round((shard.cpu_s() - before) / answers * 1e6, 1)
            print(".", end="", file=sys.stderr, flush=True)
        resident_mib = round(filled.resident_mib(), 1)
        cpu = (cpu_us[empty.name], cpu_us[filled.name])
        pairs.append(Pair(results[empty.name], results[filled.name], resident_mib, *cpu))
    print("\r", end="", file=sys.stderr)
    return Measured(load, pairs)


def _ms(result: Result, percent: float) -> float:
    return (result.latency.percentile_ns(percent) or 0) / 1e6


def _two_digits(value: float) -> str:
    return f"{value:.2f}"


def _one_digit(value: float) -> str:
    return f"{value:.1f}"
