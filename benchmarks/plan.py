"""Which system is given which load, how often and in which order. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.measure.generator import Load
from benchmarks.systems.catalogue import (
    FLOOR,
    GO,
    NOOP,
    PINNED,
    PYTHON,
    SHARD,
    SHARD_NGINX,
    STATIC,
    TWO_SHARDS,
)
from benchmarks.systems.whole import EVERYTHING, SHIPPING

HEADLINE_CONNECTIONS: Final = 32
OPEN_LOOP_CONNECTIONS: Final = 256
GET_RATE: Final = 5000.0
# Beyond its capacity an open loop shows only how long its queue was allowed to grow.
PYTHON_RATE_MAX: Final = 2000.0
PARTS: Final = ("generator", "closed", "open", "get", "mixed", "everything")


@dataclass(frozen=True)
class Experiment:
    """One load, for each of `systems` once a round."""

    part: str
    load: Load
    systems: tuple[str, ...]
    rounds: int

    @property
    def name(self) -> str:
        return f"{self.load.name}{' (everything on)' if EVERYTHING in self.systems else ''}"

    def order(self, rng: random.Random) -> Iterator[tuple[int, str]]:
        """(round, system): every system once a round, in an order of its own each round.

        Always the same order would give each system the same predecessor, and what that leaves behind.
        """
        for number in range(self.rounds):
            yield from ((number, name) for name in rng.sample(self.systems, len(self.systems)))


@dataclass(frozen=True)
class Wishes:
    """`rounds` for what goals are set on, `rounds_other` for the rest."""

    parts: tuple[str, ...]
    rounds: int
    rounds_other: int
    seconds: float
    connections: tuple[int, ...]
    rates: tuple[float, ...]


def experiments(wishes: Wishes, available: Sequence[str]) -> list[Experiment]:
    """Only with systems that are `available`; an experiment without any is left out."""
    planned = [
        Experiment(
            experiment.part,
            experiment.load,
            tuple(name for name in experiment.systems if name in available),
            experiment.rounds,
        )
        for experiment in _all(wishes)
        if experiment.part in wishes.parts
    ]
    return [experiment for experiment in planned if experiment.systems]


def _all(wishes: Wishes) -> Iterator[Experiment]:
    through_nginx = (FLOOR, SHARD_NGINX, PINNED, SHIPPING, GO)
    seconds = wishes.seconds
    closed = Load("post", HEADLINE_CONNECTIONS, seconds)
    yield Experiment("generator", closed, (STATIC,), wishes.rounds_other)
    for connections in wishes.connections:
        rounds = wishes.rounds if connections == HEADLINE_CONNECTIONS else wishes.rounds_other
        load = Load("post", connections, seconds)
        yield Experiment("closed", load, (NOOP, SHARD, *through_nginx, TWO_SHARDS, PYTHON), rounds)
    for rate in wishes.rates:
        load = Load("post", OPEN_LOOP_CONNECTIONS, seconds, rate)
        python = (PYTHON,) if rate <= PYTHON_RATE_MAX else ()
        yield Experiment("open", load, (*through_nginx, *python), wishes.rounds)
    polls = Load("get", OPEN_LOOP_CONNECTIONS, seconds, GET_RATE)
    yield Experiment("get", polls, through_nginx, wishes.rounds)
    mixed = Load("mixed", HEADLINE_CONNECTIONS, seconds)
    yield Experiment("mixed", mixed, (*through_nginx, PYTHON), wishes.rounds_other)
    yield Experiment("everything", closed, (FLOOR, EVERYTHING), wishes.rounds_other)
    slowest = Load("post", OPEN_LOOP_CONNECTIONS, seconds, min(wishes.rates, default=GET_RATE))
    yield Experiment("everything", slowest, (FLOOR, EVERYTHING), wishes.rounds_other)
