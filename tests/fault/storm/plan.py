"""What a storm does to a stack, and when: drawn from the campaign's seed and the round's number, so that a
round that failed can be had again. Pure.

Kinds of fault come from a deck: each comes once before any comes again. Faults overlap, at most `AT_ONCE` at
a time, never two on the same target. The last `CALM_S` of a storm begin nothing, so that what is in it meets
load.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

SHARDS: Final = 2
PROCESSORS: Final = 2
AT_ONCE: Final = 3
CALM_S: Final = 5.0
_FIRST_S: Final = 2.0
_GAP_S: Final = (0.3, 5.0)  # between the beginnings of two faults


class Kind(enum.StrEnum):
    """What is injected. The target is a part of the stack, a wire, or what is said here."""

    KILL = "kill"  # -9
    TERM = "term"  # a graceful end; the supervisor starts it again
    FREEZE = "freeze"  # SIGSTOP, SIGCONT: beyond leases, watchdogs and the Kafka session
    DISK_FULL = "disk_full"
    DISK_ERROR = "disk_error"  # fsync fails
    DISK_TORN = "disk_torn"  # a write is cut short, the next find no room
    DISK_HANG = "disk_hang"  # fsync waits
    POWER_CUT = "power_cut"  # of a shard and its cdc, its disk slow before: what was not fsynced is gone
    CLOCK = "clock"  # a step, and back
    CUT = "cut"  # every connection on a wire ends
    REFUSE = "refuse"  # nobody listens on a wire
    STALL = "stall"  # a wire carries nothing
    SLOW = "slow"  # a wire carries late
    PSP = "psp"  # the simulator's scenario
    RING = "ring"  # a shard joins, and one leaves
    ROLLING = "rolling"  # all shards or all processors end gracefully, one after another


_TAKES_S: Final = {Kind.RING: 40.0, Kind.ROLLING: 15.0}

PARTS: Final = (
    *(f"shard-{shard}" for shard in range(SHARDS)),
    *(f"cdc-{shard}" for shard in range(SHARDS)),
    *(f"processor-{number}" for number in range(PROCESSORS)),
    "nginx",
    "kafka",
    "postgres",
    "psp_simulator",
)
WIRES: Final = (
    *(f"processor-{number}>{end}" for number in range(PROCESSORS) for end in ("kafka", "postgres", "psp")),
    *(f"cdc-{shard}>kafka" for shard in range(SHARDS)),
    *(f"shard-{shard}>ledger-{number}" for shard in range(SHARDS) for number in range(PROCESSORS)),
)
SCENARIOS: Final = ("down", "error_rate", "lost_answer_rate", "reset_rate", "latency_ms")
_HOSTS: Final = tuple(part for part in PARTS if part.startswith(("shard-", "cdc-", "processor-")))
_SHARDS: Final = tuple(part for part in PARTS if part.startswith("shard-"))


@dataclass(frozen=True)
class Fault:
    """`size` is what the kind makes of it: seconds of a clock's step or of a delay, a rate, milliseconds."""

    at_s: float
    kind: Kind
    target: str
    for_s: float = 0.0
    size: float = 0.0

    @property
    def until_s(self) -> float:
        """What it takes beside `for_s` depends on the machine."""
        return self.at_s + self.for_s + _TAKES_S.get(self.kind, 0.0)

    def touches(self) -> frozenset[str]:
        """What no other fault may have at the same time."""
        match self.kind:
            case Kind.ROLLING:
                return frozenset(part for part in PARTS if part.startswith(self.target)) | {Kind.ROLLING}
            case Kind.RING | Kind.PSP:
                return frozenset({self.kind})
            case Kind.POWER_CUT:
                return frozenset({self.target, self.target.replace("shard", "cdc")})
            case Kind.CLOCK:
                return frozenset({f"clock of {self.target}"})
        return frozenset({self.target})

    def __str__(self) -> str:
        lasting = f" for {self.for_s:.1f} s" if self.for_s else ""
        size = f" of {self.size:g}" if self.size else ""
        return f"{self.kind} {self.target}{size}{lasting}"


def budget_of(seed: int, number: int) -> float | None:
    """One storm of four holds the processors to so many calls to the PSP in a second, all together."""
    return Random(f"budget {seed} {number}").choice((None, None, None, 40.0))


# Target, how long, how much.
Drawn = tuple[str, float, float]


def _any(
    targets: tuple[str, ...], shortest_s: float = 0.0, longest_s: float = 0.0
) -> Callable[[Random], Drawn]:
    return lambda random: (random.choice(targets), random.uniform(shortest_s, longest_s), 0.0)


def _freeze(random: Random) -> Drawn:
    """A processor for longer than its lease and its Kafka session; nginx so that clients still wait."""
    target = random.choice(PARTS)
    longest_s = 3.0 if target == "nginx" else 9.0
    return target, random.uniform(0.5, longest_s), 0.0


def _clock(random: Random) -> Drawn:
    step_s = random.choice((-1, 1)) * random.choice((1, 5, 60, 600))
    return random.choice(_HOSTS), random.uniform(2, 8), float(step_s)


def _slow(random: Random) -> Drawn:
    return random.choice(WIRES), random.uniform(2, 8), random.uniform(0.02, 0.3)


def _psp(random: Random) -> Drawn:
    knob = random.choice(SCENARIOS)
    size = {"down": 1.0, "latency_ms": random.choice((100.0, 800.0, 2500.0))}.get(
        knob, random.uniform(0.1, 0.5)
    )
    return knob, random.uniform(2, 8), round(size, 2)


_DRAWS: Final[dict[Kind, Callable[[Random], Drawn]]] = {
    Kind.KILL: _any(PARTS),
    Kind.TERM: _any(PARTS),
    Kind.FREEZE: _freeze,
    Kind.DISK_FULL: _any(_SHARDS, 1, 5),
    Kind.DISK_ERROR: _any(_SHARDS, 0.5, 3),
    Kind.DISK_TORN: _any(_SHARDS, 0.5, 3),
    Kind.DISK_HANG: _any(_SHARDS, 0.5, 5),
    Kind.POWER_CUT: _any(_SHARDS, 0.2, 0.8),
    Kind.CLOCK: _clock,
    Kind.CUT: _any(WIRES),
    Kind.REFUSE: _any(WIRES, 0.5, 6),
    Kind.STALL: _any(WIRES, 1, 9),
    Kind.SLOW: _slow,
    Kind.PSP: _psp,
    Kind.RING: _any(("add and remove",), 3, 10),
    Kind.ROLLING: _any(("shard-", "processor-")),
}
# kill -9 is the fault that there is most of.
_COPIES: Final = {Kind.KILL: 5, Kind.FREEZE: 2, Kind.CUT: 2, Kind.PSP: 2}
_TOUCHED_FOR_S: Final = 3.0  # what was struck needs this long to be there again


def storm_of(
    seed: int, number: int, seconds: float, kinds: tuple[Kind, ...] = tuple(Kind)
) -> tuple[Fault, ...]:
    """In the order of their beginnings."""
    random = Random(f"storm {seed} {number}")
    faults: list[Fault] = []
    at_s = _FIRST_S
    for kind in _deck(kinds, random):
        at_s += random.uniform(*_GAP_S)
        if at_s > seconds - CALM_S:
            return tuple(faults)
        target, for_s, size = _DRAWS[kind](random)
        fault = Fault(round(at_s, 2), kind, target, round(min(for_s, seconds - at_s), 2), round(size, 2))
        at_once = [other for other in faults if other.until_s + _TOUCHED_FOR_S > at_s]
        is_free = all(fault.touches().isdisjoint(other.touches()) for other in at_once)
        if is_free and sum(other.until_s > at_s for other in at_once) < AT_ONCE:
            faults.append(fault)
    raise AssertionError("a deck has no end")


def _deck(kinds: tuple[Kind, ...], random: Random) -> Iterator[Kind]:
    cards = [kind for kind in kinds for _ in range(_COPIES.get(kind, 1))]
    while True:
        random.shuffle(cards)
        yield from cards
