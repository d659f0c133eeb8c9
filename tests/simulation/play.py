"""One run: a seed's acts, step by step, then rest; and what it came to."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.simulation.acts import KINDS, Act, draw, heal
from tests.simulation.rest import check_reads, check_rest, unrest
from tests.simulation.watch import Broken
from tests.simulation.world import Size, World, listening
from tollgate import telemetry

_REST_US: Final = 150_000_000
_LOOK_US: Final = 500_000
_BETWEEN_READS_US: Final = 2_000
_LAST_READS_US: Final = 5_000_000


@dataclass
class Played:
    """`broken` is None when every promise held; `step` is how far it came."""

    seed: int
    acts: Sequence[Act]
    step: int
    broken: Broken | None
    trace: list[str]
    digest: str
    virtual_s: float
    callbacks: int
    payments: int
    counts: Counter[str]


def play(seed: int, steps: int, acts: Sequence[Act] | None = None) -> Played:
    """The same arguments give the same trace. `acts` instead of those that the seed draws."""
    telemetry._random.seed(seed)
    acts = draw(seed, steps) if acts is None else acts
    world = World(seed, Size.drawn(Random(f"{seed}/size")))
    counting = gc.isenabled()
    gc.disable()  # what it would end, ends in `close`
    step, broken = 0, None
    try:
        with listening(world.watch):
            world.start()
            world.loop.run_for(50_000)
            for act in acts:
                step += 1
                KINDS[act.kind].do(world, act.a, act.b)
                world.loop.run_for(act.dt_us)
                world.check()
            _come_to_rest(world)
    except Broken as found:
        broken = found
    finally:
        with listening(world.watch):
            world.loop.close()
        if counting:
            gc.enable()
    return Played(
        seed,
        acts,
        step,
        broken,
        world.trace.lines,
        world.trace.digest(),
        world.loop.now_us / 1e6,
        world.loop.callbacks,
        len(world.clients.purchases),
        world.clients.counts,
    )


def _come_to_rest(world: World) -> None:
    heal(world)
    deadline_us = world.loop.now_us + _REST_US
    quiet = 0
    while quiet < 3:  # what is seen at rest once may be between two things
        world.loop.run_for(_LOOK_US)
        heal(world)  # what was to break later does so no more
        world.check()
        why = unrest(world)
        quiet = 0 if why else quiet + 1
        if why and world.loop.now_us > deadline_us:
            raise Broken("liveness", f"it does not come to rest: {why}")
    check_rest(world)
    for purchase in world.clients.purchases:
        world.clients.read(purchase)
        world.loop.run_for(_BETWEEN_READS_US)  # look-ups are bounded
    world.loop.run_for(_LAST_READS_US)
    world.check()
    check_reads(world)
