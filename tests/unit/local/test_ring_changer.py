"""Shards come and go one at a time; a change that is cut off anywhere is finished by whoever comes next."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import count
from random import Random

import pytest

from tollgate.clock import FakeClock
from tollgate.errors import OperationalError, RejectedInput
from tollgate.local import ring_changer
from tollgate.local.ports import PortPlan
from tollgate.local.ring_changer import RingChanger, Say
from tollgate.local.stack import new_ring
from tollgate.ring_file import RingFile, ShardEntry


class Killed(BaseException):
    """The process ended here."""


class World:
    """What outlives a supervisor: the file, and what Postgres has. Processes die with it."""

    def __init__(self, shards: int = 2) -> None:
        self.file = new_ring(PortPlan(), shards)
        self.drained: set[int] = set()
        self.steps_left: int | None = None

    def step(self) -> None:
        """The process is killed when no step is left."""
        if self.steps_left is not None:
            if self.steps_left == 0:
                raise Killed
            self.steps_left -= 1

    def start_supervisor(self) -> FakeHands:
        return FakeHands(self)

    def check(self, hands: FakeHands) -> None:
        """What must be true whenever no change is under way."""
        ring = self.file
        on_ring = {shard.id for shard in ring.shards}
        assert (ring.joining, ring.leaving) == (None, None)
        assert hands.running == on_ring
        assert hands.served == ring.version
        assert self.drained >= set(ring.retired)
        assert not on_ring & set(ring.retired)


class FakeHands:
    """Refuses what would lose a payment: a ring with a shard that doesn't run, an undrained end."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.running = {shard.id for shard in world.file.running}
        self.served = world.file.version
        self.broken: set[str] = set()
        self.busy = 0
        self.began = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.changer = RingChanger(world.file, self.write, self, FakeClock())

    def write(self, ring: RingFile) -> None:
        self.world.step()
        assert {shard.id for shard in ring.shards} <= self.running, "a shard on the ring runs"
        assert self.world.drained >= set(ring.retired)
        self.world.file = ring
        self.world.step()

    def next_address(self, ring: RingFile) -> tuple[str, str]:
        return f"127.0.0.1:{7100 + ring.next_id}", f"127.0.0.1:{7200 + ring.next_id}"

    async def start(self, shard: ShardEntry) -> None:
        await self._work("start")
        self.running.add(shard.id)

    async def end(self, shard: ShardEntry) -> None:
        await self._work("end")
        ring = self.world.file
        assert shard not in ring.shards
        assert shard == ring.joining or shard.id in ring.retired
        assert self.served == ring.version, "nobody asks a shard that ends"
        self.running.discard(shard.id)

    async def serve(self, ring: RingFile) -> None:
        await self._work("serve")
        assert ring == self.world.file
        self.served = ring.version

    def check_drainable(self, shard: int) -> None:
        if "drainable" in self.broken:
            raise RejectedInput(f"shard {shard} can't be drained")

    async def drain(self, shard: ShardEntry, say: Say) -> None:
        await self._work("drain")
        assert shard not in self.world.file.shards
        assert self.served == self.world.file.version, "nobody sends to a shard that drains"
        self.world.drained.add(shard.id)

    async def _work(self, what: str) -> None:
        self.world.step()
        self.busy += 1
        self.began.set()
        assert self.busy == 1, "one change at a time"
        await self.go_on.wait()
        self.busy -= 1
        if what in self.broken:
            raise OperationalError(f"{what} failed")
        self.world.step()


def ids(ring: RingFile) -> list[int]:
    return [shard.id for shard in ring.shards]


def nothing(_note: str) -> None:
    return None


async def settle(hands: FakeHands) -> None:
    """Lets `keep` do what there is to do. Raises Killed when it is killed meanwhile."""
    keeper = asyncio.create_task(hands.changer.keep())
    try:
        async with asyncio.timeout(10):
            while not keeper.done() and (hands.busy or is_unfinished(hands)):
                await asyncio.sleep(0)
    finally:
        keeper.cancel()
        with suppress(asyncio.CancelledError):
            await keeper


def is_unfinished(hands: FakeHands) -> bool:
    ring = hands.world.file
    return bool(ring.joining or ring.leaving) or hands.served != ring.version


async def test_a_shard_is_added_and_another_removed() -> None:
    world = World()
    hands = world.start_supervisor()
    notes: list[str] = []
    assert (await hands.changer.add(notes.append)).id == 2
    await hands.changer.remove(0, notes.append)
    assert (ids(world.file), world.file.retired, world.file.version) == ([1, 2], (0,), 4)
    assert notes == [
        "shard 2 starts",
        "ring 2 spreads",
        "ring 3 spreads",
        "ring 4 spreads",
        "shard 0 ends",
    ]
    world.check(hands)


@pytest.mark.parametrize("command", ["add", "remove"])
async def test_a_supervisor_killed_at_any_step_leaves_what_the_next_one_finishes(command: str) -> None:
    for steps in count():
        world = World()
        hands = world.start_supervisor()
        world.steps_left = steps
        killed = False
        try:
            await (hands.changer.add(nothing) if command == "add" else hands.changer.remove(1, nothing))
        except Killed:
            killed = True
        world.steps_left = None
        successor = world.start_supervisor()
        await settle(successor)
        world.check(successor)
        assert ids(world.file) in ([0, 1], [0, 1, 2]) if command == "add" else ([0, 1], [0])
        assert (await successor.changer.add(nothing)).id == world.file.next_id - 1
        world.check(successor)
        if not killed:
            assert steps > 6, "every step was reached"
            return


@pytest.mark.parametrize("seed", range(20))
async def test_killed_again_and_again_it_still_ends_where_it_should(seed: int) -> None:
    random = Random(seed)
    world = World(3)
    world.steps_left = random.randrange(10)
    hands = world.start_supervisor()
    with suppress(Killed):
        await hands.changer.add(nothing)
        await hands.changer.remove(1, nothing)
    for _ in range(8):
        world.steps_left = random.randrange(5)
        with suppress(Killed):
            await settle(world.start_supervisor())
    world.steps_left = None
    last = world.start_supervisor()
    await settle(last)
    world.check(last)


async def test_a_shard_that_does_not_get_ready_is_given_up_and_its_id_never_given_again() -> None:
    world = World()
    hands = world.start_supervisor()
    hands.broken.add("start")
    with pytest.raises(OperationalError, match="start failed"):
        await hands.changer.add(nothing)
    world.check(hands)
    assert (ids(world.file), world.file.version) == ([0, 1], 1)
    hands.broken.clear()
    assert (await hands.changer.add(nothing)).id == 3


async def test_a_defect_in_a_step_ends_no_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring_changer, "_RETRY_S", 0)
    world = World()
    hands = world.start_supervisor()
    hands.broken.add("drain")
    with pytest.raises(OperationalError):
        await hands.changer.remove(1, nothing)
    hands.broken.clear()
    defects = iter([ValueError("nobody foresaw it")])

    async def drain_with_a_defect(shard: ShardEntry, say: Say) -> None:
        for defect in defects:
            raise defect
        await FakeHands.drain(hands, shard, say)

    monkeypatch.setattr(hands, "drain", drain_with_a_defect)
    await settle(hands)
    world.check(hands)


@pytest.mark.parametrize("broken", ["serve", "drain"])
async def test_what_failed_half_way_is_taken_up_again(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring_changer, "_RETRY_S", 0)
    world = World()
    hands = world.start_supervisor()
    hands.broken.add(broken)
    with pytest.raises(OperationalError, match=f"{broken} failed"):
        await hands.changer.remove(1, nothing)
    assert (ids(world.file), world.file.retired) == ([0], ())
    hands.began.clear()
    settling = asyncio.create_task(settle(hands))
    await hands.began.wait()
    assert (ids(world.file), world.file.retired) == ([0], ())
    hands.broken.clear()
    await settling
    world.check(hands)
    assert ids(world.file) == [0]
    assert list(world.file.retired) == [1]


async def test_what_failed_half_way_is_finished_before_the_next_change() -> None:
    world = World(3)
    hands = world.start_supervisor()
    hands.broken.add("drain")
    with pytest.raises(OperationalError):
        await hands.changer.remove(1, nothing)
    hands.broken.clear()
    await hands.changer.remove(2, nothing)
    assert world.file.retired == (1, 2)
    world.check(hands)


async def test_who_asks_again_for_the_removal_under_way_waits_for_its_end() -> None:
    world = World(3)
    hands = world.start_supervisor()
    hands.go_on.clear()
    first = asyncio.create_task(hands.changer.remove(1, nothing))
    await hands.began.wait()
    second = asyncio.create_task(hands.changer.remove(1, nothing))
    hands.go_on.set()
    await asyncio.gather(first, second)
    assert world.file.retired == (1,)


async def test_two_at_once_come_one_after_the_other() -> None:
    world = World()
    hands = world.start_supervisor()
    added = await asyncio.gather(*(hands.changer.add(nothing) for _ in range(3)))
    assert [shard.id for shard in added] == [2, 3, 4]
    await asyncio.gather(*(hands.changer.remove(shard, nothing) for shard in (0, 3)))
    assert ids(world.file) == [1, 2, 4]
    world.check(hands)


@pytest.mark.parametrize(("shards", "shard"), [(2, 9), (1, 0)])
async def test_what_can_not_be_removed_changes_nothing(shards: int, shard: int) -> None:
    world = World(shards)
    before = world.file
    hands = world.start_supervisor()
    with pytest.raises(RejectedInput, match="Nothing was changed"):
        await hands.changer.remove(shard, nothing)
    hands.broken.add("drainable")
    with pytest.raises(RejectedInput):
        await hands.changer.remove(0, nothing)
    assert world.file is before
