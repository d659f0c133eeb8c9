"""What each fault of a plan does to the stack, and what it met there.

A strike returns when what it did is healed; what the supervisor has to bring back, it brings back by itself.
Nothing is struck that is no process of this stack.
"""

from __future__ import annotations

import asyncio
import errno
import json
import re
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Final

import aiohttp
import psutil

from tests.fault.storm.plan import Fault, Kind
from tests.fault.storm.stage import Stage
from tests.fixtures.faulty_disk import SYNC, WRITE, FaultyDisk, cut_power_in_place
from tests.fixtures.waiting import is_gone
from tollgate.local.run_state import PartStatus

_LOOK_EVERY_S: Final = 0.05
_GONE_S: Final = 10.0
_BACK_S: Final = 30.0
_HEALED_S: Final = 30.0
_RING_S: Final = 60.0
_ASKED_S: Final = 2.0
NOTHING: Final = ""
# As the supervisor ends them. Postgres' SIGTERM waits for every session, and the processors keep theirs.
_GRACEFUL: Final = {"postgres": signal.SIGINT, "nginx": signal.SIGQUIT}


@dataclass(frozen=True)
class Struck:
    """`met` says what the fault found to break; empty: nothing. `under_way` requests had no answer yet."""

    fault: Fault
    at_s: float
    until_s: float
    met: str
    under_way: int

    def document(self) -> dict[str, Any]:
        return asdict(self)


class Strikes:
    def __init__(self, stage: Stage, under_way: Callable[[], int]) -> None:
        self._stage = stage
        self._stack = stage.stack
        self._under_way = under_way
        self.struck: list[Struck] = []

    async def play(self, plan: Iterable[Fault]) -> None:
        """The whole plan, each fault at its time. Raises what kept one from being healed."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for fault in plan:
                group.create_task(self._at_its_time(fault, began))

    async def heal(self) -> None:
        """Whatever was cut off in between: the stack is left to itself."""
        for disk in self._stage.disks.values():
            disk.heal()
            disk.shift_clock(0)
        for wire in self._stage.wires.values():
            wire.heal()
            await wire.open()
        await self._scenario(down=False, error_rate=0, lost_answer_rate=0, reset_rate=0, latency_ms=0)
        for part in self._stack.pids:
            self._signal(self._tree(part), signal.SIGCONT)

    async def _at_its_time(self, fault: Fault, began: float) -> None:
        await asyncio.sleep(began + fault.at_s - time.monotonic())
        at_s, under_way = time.monotonic() - began, self._under_way()
        met = await self._of(fault)
        self.struck.append(Struck(fault, round(at_s, 2), round(time.monotonic() - began, 2), met, under_way))

    async def _of(self, fault: Fault) -> str:
        match fault.kind:
            case Kind.KILL:
                return self._end(fault.target, signal.SIGKILL)
            case Kind.TERM:
                return self._end(fault.target, _GRACEFUL.get(fault.target, signal.SIGTERM))
            case Kind.FREEZE:
                return await self._freeze(fault)
            case Kind.DISK_FULL:
                return await self._disk(fault, lambda disk: disk.fail(WRITE, errno.ENOSPC))
            case Kind.DISK_ERROR:
                return await self._disk(fault, lambda disk: disk.fail(SYNC, errno.EIO))
            case Kind.DISK_TORN:
                return await self._disk(fault, _tear)
            case Kind.DISK_HANG:
                return await self._disk(fault, lambda disk: disk.hang(SYNC))
            case Kind.POWER_CUT:
                return await self._cut_power(fault)
            case Kind.CLOCK:
                return await self._step_clock(fault)
            case Kind.CUT | Kind.REFUSE | Kind.STALL | Kind.SLOW:
                return await self._wire(fault)
            case Kind.PSP:
                return await self._psp(fault)
            case Kind.RING:
                return await self._ring(fault)
            case Kind.ROLLING:
                return await self._roll(fault.target)

    def _part(self, target: str) -> str:
        """Shards are meant by their place on the ring: which ids are on it changes."""
        kind, _, place = target.rpartition("-")
        if kind not in ("shard", "cdc"):
            return target
        shards = [shard.id for shard in self._stack.json.shards]
        return f"{kind}-{shards[int(place) % len(shards)]}"

    def _process(self, part: str) -> psutil.Process | None:
        """None while the supervisor has none for it."""
        with suppress(psutil.NoSuchProcess, KeyError):
            process = psutil.Process(self._stack.pids[part])
            if process.ppid() == self._stack.state.supervisor_pid and not is_gone(process.pid):
                return process
        return None

    def _tree(self, part: str) -> list[psutil.Process]:
        process = self._process(part)
        if process is None:
            return []
        with suppress(psutil.NoSuchProcess):
            return [process, *process.children(recursive=True)]
        return []

    def _signal(self, processes: Iterable[psutil.Process], number: signal.Signals) -> None:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def _end(self, target: str, number: signal.Signals) -> str:
        process = self._process(part := self._part(target))
        if process is None:
            return NOTHING
        self._signal([process], number)
        return f"{part}, pid {process.pid}"

    async def _freeze(self, fault: Fault) -> str:
        frozen = self._tree(part := self._part(fault.target))
        self._signal(frozen, signal.SIGSTOP)
        try:
            await asyncio.sleep(fault.for_s)  # the time is what the fault is; so below
        finally:
            self._signal(frozen, signal.SIGCONT)
        return f"{part}, {len(frozen)} processes" if frozen else NOTHING

    async def _disk(self, fault: Fault, break_it: Callable[[FaultyDisk], None]) -> str:
        disk = self._stage.disks[part := self._part(fault.target)]
        break_it(disk)
        try:
            await asyncio.sleep(fault.for_s)
            hits = disk.hits
        finally:
            disk.heal()
        return f"{part}, {hits} calls" if hits else NOTHING

    async def _cut_power(self, fault: Fault) -> str:
        """The disk no longer keeps up, then all is dark. The supervisor is frozen meanwhile: nobody starts
        again what has no power.
        """
        shard = self._part(fault.target)
        disk = self._stage.disks[shard]
        disk.hang(SYNC)
        await asyncio.sleep(fault.for_s)
        victims = [self._process(part) for part in (shard, shard.replace("shard", "cdc"))]
        supervisor = psutil.Process(self._stack.state.supervisor_pid)
        self._signal([supervisor], signal.SIGSTOP)
        try:
            self._signal([victim for victim in victims if victim], signal.SIGKILL)
            await _until(lambda: all(is_gone(victim.pid) for victim in victims if victim), _GONE_S)
            folder = self._stack.paths.shard(int(shard.rpartition("-")[2]))
            lost = cut_power_in_place(folder, disk.synced_bytes())
        finally:
            disk.heal()
            self._signal([supervisor], signal.SIGCONT)
        return f"{shard}, {lost} bytes that were not synced" if victims[0] else NOTHING

    async def _step_clock(self, fault: Fault) -> str:
        disk = self._stage.disks[part := self._part(fault.target)]
        disk.shift_clock(round(fault.size))
        try:
            await asyncio.sleep(fault.for_s)
        finally:
            disk.shift_clock(0)
        return part if self._process(part) else NOTHING

    async def _wire(self, fault: Fault) -> str:
        wire = self._stage.wires[fault.target]
        connections, asked = wire.connections, wire.asked
        try:
            match fault.kind:
                case Kind.CUT:
                    wire.cut()
                case Kind.REFUSE:
                    await wire.close()
                case Kind.STALL:
                    wire.stall()
                case _:
                    wire.slow(fault.size)
            await asyncio.sleep(fault.for_s)
        finally:
            wire.heal()
            await wire.open()
        connections += wire.asked - asked
        return f"{connections} connections" if connections else NOTHING

    async def _psp(self, fault: Fault) -> str:
        value: float | bool = True if fault.target == "down" else fault.size
        if not await self._scenario(**{fault.target: value}):
            return NOTHING
        try:
            await asyncio.sleep(fault.for_s)
        finally:
            await _until_awaited(
                lambda: self._scenario(**{fault.target: False if value is True else 0.0}), _HEALED_S
            )
        return "the simulator took it"

    async def _scenario(self, **knobs: float | bool) -> bool:
        timeout = aiohttp.ClientTimeout(total=_ASKED_S)
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with aiohttp.ClientSession(timeout=timeout) as session:
                url = f"{self._stack.json.psp_simulator_url}/_scenario"
                async with session.post(url, data=json.dumps(knobs)) as answer:
                    return answer.status == 200
        return False

    async def _ring(self, fault: Fault) -> str:
        """One joins; after a while it goes again, or the oldest in its place."""
        added = await self._shards("add")
        joined = re.search(r"Shard ([0-9]+) is on the ring", added.stdout)
        if joined is None:
            return f"add was refused: {_last(added.stderr)}"
        await asyncio.sleep(fault.for_s)
        shards = [shard.id for shard in self._stack.json.shards]
        leaving = joined[1] if round(fault.at_s * 100) % 2 else str(min(shards))
        removed = await self._shards("remove", leaving)
        went = "went" if removed.returncode == 0 else f"did not go at once: {_last(removed.stderr)}"
        return f"shard {joined[1]} joined, shard {leaving} {went}"

    async def _shards(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The supervisor goes on with what is not complete when we stop waiting."""
        bound = ("--timeout", f"{_RING_S:g}")
        return await asyncio.to_thread(self._stack.tollgate, "shards", *arguments, *bound)

    async def _roll(self, prefix: str) -> str:
        """The next goes when the one before is ready again."""
        rolled = []
        for part in sorted(part for part in self._stack.pids if part.startswith(prefix)):
            process = self._process(part)
            if process is None:
                continue
            self._signal([process], signal.SIGTERM)
            rolled.append(part)
            pid = process.pid
            with suppress(TimeoutError):  # other faults may keep it away
                await _until(lambda part=part, pid=pid: self._is_back(part, pid), _BACK_S)  # type: ignore[misc]
        return ", ".join(rolled)

    def _is_back(self, part: str, was: int) -> bool:
        return any(
            one.name == part and one.pid != was and one.status is PartStatus.READY
            for one in self._stack.state.parts
        )


def _tear(disk: FaultyDisk) -> None:
    disk.shorten()
    disk.fail(WRITE, errno.ENOSPC)


def _last(said: str) -> str:
    return (said.strip().splitlines() or ["nothing was said"])[-1]


async def _until(condition: Callable[[], bool], within_s: float) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(_LOOK_EVERY_S)


async def _until_awaited(condition: Callable[[], Awaitable[bool]], within_s: float) -> None:
    async with asyncio.timeout(within_s):
        while not await condition():
            await asyncio.sleep(_LOOK_EVERY_S)
