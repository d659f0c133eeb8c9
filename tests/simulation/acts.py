"""What may happen in a step: what a client does, what breaks, or nothing; then time goes on.

A seed draws the acts before anything runs, so that a failing run can be made shorter by leaving acts out.
Every fault ends by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final, NamedTuple

from tests.simulation.processor import RISKY
from tests.simulation.world import World

METHODS: Final = (
    "pm_ok", "pm_ok", "pm_ok", "pm_declined", "pm_action", "pm_slow_300", "pm_slow_2500", "pm_unavailable_2",
    "pm_lost", "pm_reset", "pm_late_webhook",
)  # fmt: skip
AMOUNTS: Final = (1, 900, 1200, 4999, RISKY)


class Act(NamedTuple):
    """`a` and `b` are drawn, what they choose among is the act's; then `dt_us` pass."""

    kind: str
    a: int
    b: int
    dt_us: int

    def __str__(self) -> str:
        return f"{self.kind} {self.a} {self.b} +{self.dt_us}us"


@dataclass(frozen=True)
class Kind:
    weight: float
    do: Callable[[World, int, int], None]


def _pay(world: World, a: int, b: int) -> None:
    method, amount = METHODS[a % len(METHODS)], AMOUNTS[b % len(AMOUNTS)]
    world.clients.pay(b // 16, amount, method, manual=a // 64 % 3 == 0, times=1 + a // 256 % 16 // 14)


def _pay_again(world: World, a: int, b: int) -> None:
    world.clients.pay_again(a, other=b % 8 == 0)


def _poll(world: World, a: int, _b: int) -> None:
    world.clients.poll(a)


def _operate(world: World, a: int, b: int) -> None:
    kind = ("capture", "cancel", "refund", "refund")[b % 4]
    amount = (None, 1, 400, 900)[b // 4 % 4]
    world.clients.operate(kind, a, amount, f"{kind}-{b // 16 % 3}")


def _change(world: World, a: int, b: int) -> None:
    world.clients.change(a, f"text {b % 7}")


def _visit(world: World, a: int, b: int) -> None:
    """A payer comes to the page of a charge that waits for one, if there is any."""
    book = world.psp.witness.book
    waiting = [one for one in book._charges if (book.charge(one) or {}).get("status") == "requires_action"]
    if waiting:
        world.psp.visit(waiting[a % len(waiting)], approves=b % 4 != 0)


def _kill_shard(world: World, a: int, b: int) -> None:
    world.kill_shard(_one(world.shards, a), power=b % 2 == 0)


def _kill_cdc(world: World, a: int, _b: int) -> None:
    world.kill_cdc(_one(world.cdcs, a))


def _kill_processor(world: World, a: int, _b: int) -> None:
    world.kill_processor(_one(world.processors, a))


def _pause(world: World, a: int, b: int) -> None:
    """SIGSTOP, for up to 12 s: longer than leases and Kafka's session."""
    parts = [
        *world.shards.values(),
        *world.cdcs.values(),
        *world.processors.values(),
        *world.processors.values(),
    ]
    part = parts[a % len(parts)]
    if part is not None:
        world.says(f"{part.process.name} stands still")
        world.loop.pause(part.process)
        world.after(100_000 + (b % 256) ** 2 * 180, world.loop.resume, part.process)


def _kafka_down(world: World, _a: int, b: int) -> None:
    world.says("kafka is down")
    world.broker.up = False
    world.after(200_000 + b % 8_000_000, _kafka_up, world)


def _kafka_up(world: World) -> None:
    world.broker.up = True


def _kafka_forgetful(world: World, a: int, b: int) -> None:
    """Reports are lost: batches are sent again."""
    world.broker.lost_reports = (a % 50) / 100
    world.after(b % 4_000_000, _reports_come, world)


def _reports_come(world: World) -> None:
    world.broker.lost_reports = 0.0


def _producer_breaks(world: World, a: int, b: int) -> None:
    if b % 2:
        if (cdc := world.cdcs[_one(world.cdcs, a)]) is not None:
            cdc.publishers[-1].breaks("fatal: it was fenced")
    elif (processor := world.processors[_one(world.processors, a)]) is not None:
        processor.publishing.breaks()


def _rebalance(world: World, _a: int, _b: int) -> None:
    if world.broker.group.members:
        world.broker.group.rebalance()


def _postgres_down(world: World, _a: int, b: int) -> None:
    world.says("postgres is down")
    world.server.goes_down()
    world.after(200_000 + b % 6_000_000, _postgres_up, world)


def _postgres_up(world: World) -> None:
    world.server.up = True


def _postgres_breaks(world: World, a: int, b: int) -> None:
    world.server.breaks, world.server.unheard = (a % 20) / 200, (a // 32 % 20) / 40
    world.after(500_000 + b % 4_000_000, _postgres_holds, world)


def _postgres_holds(world: World) -> None:
    world.server.breaks = world.server.unheard = 0.0


def _psp_trouble(world: World, a: int, b: int) -> None:
    knobs: list[dict[str, object]] = [
        {"error_rate": 0.5},
        {"lost_answer_rate": 0.5},
        {"reset_rate": 0.5},
        {"latency_ms": 700.0},
        {"latency_ms": 2600.0},
        {"down": True},
    ]
    knob = knobs[a % len(knobs)]
    world.says(f"the psp: {knob}")
    world.psp.set(**knob)
    longest_us = 60_000_000 if b % 16 == 0 else 5_000_000
    world.after(300_000 + b % longest_us, _psp_well, world)


def _blackout(world: World, a: int, b: int) -> None:
    """A line goes dead: answers of the PSP come no more, then a processor dies in the midst of its calls and
    the PSP is not reached for a while. Each retry has no effect then, for certain; what was sent before may.
    """
    world.says("the psp's answers are lost")
    world.psp.set(lost_answer_rate=1.0)
    world.after(b % 1_000_000, _psp_away, world, _one(world.processors, a))
    world.after(2_000_000 + b % 20_000_000, _psp_well, world)


def _psp_away(world: World, processor: int) -> None:
    world.says("the psp is away")
    world.psp.is_away = True
    world.kill_processor(processor)


def _psp_well(world: World) -> None:
    world.psp.is_away = False
    world.psp.set(error_rate=0.0, lost_answer_rate=0.0, reset_rate=0.0, latency_ms=0.0, down=False)


def _weather(world: World, a: int, b: int) -> None:
    weather = world.network.weather
    weather.drop, weather.double, weather.slow = (a % 8) / 40, (a // 8 % 8) / 20, (a // 64 % 8) / 40
    world.after(300_000 + b % 5_000_000, _fair, world)


def _fair(world: World) -> None:
    weather = world.network.weather
    weather.drop = weather.double = weather.slow = 0.0


def _cut(world: World, a: int, b: int) -> None:
    """Two parts don't reach each other."""
    processors = [f"processor-{number}" for number in world.processors]
    shards = [f"shard-{number}" for number in world.shards]
    sides = [(x, y) for x in shards for y in (*processors, *shards, "client", "psp") if x != y]
    sides += [(x, "psp") for x in processors]
    sides += [(f"shard-{number}", f"cdc-{number}") for number in world.shards]
    pair = frozenset(sides[a % len(sides)])
    world.says(f"cut: {' and '.join(sorted(pair))}")
    world.network.cut[pair] = None
    world.after(300_000 + b % 6_000_000, world.network.cut.pop, pair, None)


def _disk_fails(world: World, a: int, b: int) -> None:
    volume = world.volumes[_one(world.volumes, a)]
    volume.fails = 0.3
    world.after(50_000 + b % 500_000, _disk_well, volume)


def _disk_slow(world: World, a: int, b: int) -> None:
    volume = world.volumes[_one(world.volumes, a)]
    volume.slow_us = 1_500_000
    world.after(300_000 + b % 3_000_000, _disk_well, volume)


def _disk_well(volume: object) -> None:
    volume.fails, volume.slow_us = 0.0, 2_000  # type: ignore[attr-defined]


def _sight(world: World, a: int, b: int) -> None:
    world.sight.misses, world.sight.fails = 0.5, (a % 4) / 10
    world.after(300_000 + b % 3_000_000, _sees, world)


def _sees(world: World) -> None:
    world.sight.misses, world.sight.fails = 0.02, 0.0


def _clock(world: World, a: int, b: int) -> None:
    """A wall clock is set by up to a second; Postgres' own, which the budget hangs on, by less."""
    parts = [*world.processors.values(), *world.shards.values()]
    part = parts[a % len(parts)]
    if part is not None:
        part.process.skew_us += b % 1_600_000 - 800_000


def _add_shard(world: World, _a: int, _b: int) -> None:
    world.add_shard()


def _remove_shard(world: World, a: int, _b: int) -> None:
    world.remove_shard(world.ring.shards[a % len(world.ring.shards)].id)


def _long(world: World, _a: int, b: int) -> None:
    """Longer than leases, sessions and retries, now and then longer than the PSP keeps its keys."""
    world.loop.run_for(3_000_000 + (b % 256) ** 2 * 600)


def _nothing(_world: World, _a: int, _b: int) -> None:
    """Time passes."""


def _one(parts: Mapping[int, object], number: int) -> int:
    return list(parts)[number % len(parts)]


KINDS: Final[dict[str, Kind]] = {
    "pay": Kind(7, _pay),
    "pay again": Kind(3, _pay_again),
    "poll": Kind(9, _poll),
    "operate": Kind(6, _operate),
    "change": Kind(1.5, _change),
    "visit": Kind(3, _visit),
    "kill shard": Kind(0.9, _kill_shard),
    "kill cdc": Kind(0.6, _kill_cdc),
    "kill processor": Kind(0.9, _kill_processor),
    "pause": Kind(0.9, _pause),
    "kafka down": Kind(0.4, _kafka_down),
    "kafka loses reports": Kind(0.4, _kafka_forgetful),
    "producer breaks": Kind(0.6, _producer_breaks),
    "rebalance": Kind(0.5, _rebalance),
    "postgres down": Kind(0.4, _postgres_down),
    "postgres breaks": Kind(0.9, _postgres_breaks),
    "psp": Kind(1.2, _psp_trouble),
    "blackout": Kind(0.5, _blackout),
    "weather": Kind(0.9, _weather),
    "cut": Kind(0.9, _cut),
    "disk fails": Kind(0.4, _disk_fails),
    "disk slow": Kind(0.4, _disk_slow),
    "sight": Kind(0.4, _sight),
    "clock": Kind(0.5, _clock),
    "add shard": Kind(0.2, _add_shard),
    "remove shard": Kind(0.15, _remove_shard),
    "long": Kind(0.25, _long),
    "nothing": Kind(18, _nothing),
}
CLIENTS: Final = frozenset({"pay", "pay again", "poll", "operate", "change", "visit", "nothing"})


def draw(seed: int, steps: int) -> list[Act]:
    random = Random(f"{seed}/acts")
    names, weights = list(KINDS), [kind.weight for kind in KINDS.values()]
    return [
        Act(name, random.getrandbits(24), random.getrandbits(24), _passes(random))
        for name in random.choices(names, weights, k=steps)
    ]


def _passes(random: Random) -> int:
    """Mostly milliseconds: what is under way is met in its midst."""
    chance = random.random()
    if chance < 0.62:
        return int(random.random() * 10_000)
    return int(random.random() * (110_000 if chance < 0.95 else 900_000))


def heal(world: World) -> None:
    """All faults end; what is dead starts."""
    _kafka_up(world)
    _reports_come(world)
    _postgres_up(world)
    _postgres_holds(world)
    _psp_well(world)
    _fair(world)
    _sees(world)
    world.network.cut.clear()
    for volume in world.volumes.values():
        _disk_well(volume)
        world.start_shard(volume.shard)
        world.start_cdc(volume.shard)
    for number in world.processors:
        world.start_processor(number)
    for part in (*world.shards.values(), *world.cdcs.values(), *world.processors.values()):
        if part is not None:
            world.loop.resume(part.process)
