"""Postgres, Kafka or the PSP away for minutes under load: nothing lost, nothing in the DLQ, every client
answered, back to no lag by itself, memory flat.

`make outages [DOWN=120 RATE=40]` plays all of them, one after the other, on one stack, and prints what it
saw; the default run has one short outage.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import pytest

from tests.fault.outages.away import OUTAGES, How, Outage, away
from tests.fault.outages.memory import Memory
from tests.fault.outages.rest import Lag, calls_of, lag_of, problems
from tests.fixtures.kept_connections import KeptConnections
from tests.fixtures.stack import RunningStack, all_parts_ready
from tests.fixtures.steady_load import Account, SteadyLoad
from tests.fixtures.waiting import wait_until

DOWN_S: Final = float(os.environ.get("OUTAGE_DOWN_S", "6"))
PER_SECOND: Final = float(os.environ.get("OUTAGE_PER_SECOND", "15"))
SEED: Final = int(os.environ.get("OUTAGE_SEED", str(time.time_ns() % 1_000_000)))
PLAYED: Final = OUTAGES if "OUTAGE_DOWN_S" in os.environ else (Outage("postgres", How.KILLED),)
pytestmark = [pytest.mark.stack, pytest.mark.fault, pytest.mark.timeout(120 + 8 * DOWN_S)]

# What a shard says on a machine that stood still for a moment; who asks again with the same id is served.
SHED: Final = "503 overloaded"
_REST_S: Final = 60 + 4 * DOWN_S
_POLL_S: Final = 0.05
_LOOK_EVERY_S: Final = 1.0
# Of a part that holds a window and no more. What it has before it, thousands of payments, would be more.
_GROWS_MIB: Final = 24.0
_GROWS_SHARE: Final = 0.15
_CACHE_MIB: Final = {"postgres": 128.0}  # its shared_buffers, which fill up to their size and no further


@dataclass(frozen=True)
class Seen:
    outage: Outage
    account: Account
    began: float
    ended: float
    rested: float
    at_the_end: Lag
    calls: Counter[str]
    memory: Memory


@pytest.mark.parametrize("outage", PLAYED, ids=str)
async def test_a_part_is_away_under_load_and_all_that_is_lost_is_time(
    stack: RunningStack, outage: Outage
) -> None:
    seed = SEED * 10 + PLAYED.index(outage)
    seen = await play(stack, outage, seed)
    report(seen, seed)
    account = seen.account
    wrong = refusals(account) - Counter({SHED: len(account.failures)})
    assert not wrong, f"seed {seed}: {wrong}"
    assert len(account.accepted) > PER_SECOND * DOWN_S / 2, "payments in it"
    assert not await problems(stack, account.accepted), f"seed {seed}"
    untold = [one for one in account.accepted if stack.status_of(one) != "succeeded"]
    assert not untold, f"seed {seed}: the shards were not told of {untold[:3]}"
    grown = not_flat(seen)
    assert not grown, f"seed {seed}: {grown}"


async def play(stack: RunningStack, outage: Outage, seed: int) -> Seen:
    run, memory = f"load_{seed}_", Memory(stack)
    await asyncio.to_thread(memory.sample)
    async with KeptConnections(urlsplit(stack.json.base_url).netloc, stack.json.api_key) as client:
        load = SteadyLoad(client, per_second=PER_SECOND, seed=seed)
        watching, running = asyncio.create_task(memory.watch()), asyncio.create_task(load.run())
        try:
            await more(load.account, PER_SECOND * DOWN_S / 4)
            async with away(stack, outage):
                began = time.monotonic()
                await asyncio.sleep(DOWN_S)  # the time is what the outage is
                at_the_end = await lag_of(stack, run)
            ended = time.monotonic()
            await more(load.account, PER_SECOND * DOWN_S / 4)
            load.end()
            await running
            rested = await rest(stack, run)
        finally:
            running.cancel()
            watching.cancel()
            await asyncio.gather(running, watching, return_exceptions=True)
    calls = await calls_of(stack, run)
    return Seen(outage, load.account, began, ended, rested, at_the_end, calls, memory)


async def more(account: Account, payments: float) -> None:
    goal, deadline = len(account.accepted) + payments, time.monotonic() + _REST_S
    while len(account.accepted) < goal:
        assert time.monotonic() < deadline, f"{len(account.accepted)} payments accepted of {goal:g}"
        await asyncio.sleep(_POLL_S)


async def rest(stack: RunningStack, run: str) -> float:
    """When there was no lag any more."""
    deadline = time.monotonic() + _REST_S
    while not (lag := await lag_of(stack, run)).is_none:
        assert time.monotonic() < deadline, f"not at rest within {_REST_S:g} s: {lag}"
        await asyncio.sleep(_LOOK_EVERY_S)
    rested = time.monotonic()
    await asyncio.to_thread(wait_until, lambda: all_parts_ready(stack), "all is ready", _REST_S)
    return rested


def refusals(account: Account) -> Counter[str]:
    return Counter(failure.outcome for failure in account.failures)


def not_flat(seen: Seen) -> list[str]:
    """The parts that held more and more while another was away, or while they caught up. What was killed
    begins anew.
    """
    killed = seen.outage.part if seen.outage.how is How.KILLED else None
    before = seen.memory.between(0.0, seen.began)
    most = seen.memory.peak(seen.began, seen.rested)
    return [
        f"{part} held {before[part]:.0f} MiB before and {held:.0f} MiB at most"
        for part, held in most.items()
        if part != killed and held > before[part] * (1 + _GROWS_SHARE) + _GROWS_MIB + _CACHE_MIB.get(part, 0)
    ]


def report(seen: Seen, seed: int) -> None:
    account = seen.account
    lines = [
        f"\n{seen.outage} for {seen.ended - seen.began:.0f} s, seed {seed}, {PER_SECOND:g}/s: "
        f"{len(account.accepted)} accepted, not at once: {dict(refusals(account))}, "
        f"{account.stood_still_s:.0f} s nothing sent",
        f"  waiting at its end: {seen.at_the_end}; no lag {seen.rested - seen.ended:.1f} s after it",
        f"  calls to the PSP: {dict(sorted(seen.calls.items()))}",
    ]
    phases = {
        "before": seen.memory.between(0.0, seen.began),
        "half": seen.memory.between(seen.began + DOWN_S / 4, seen.began + DOWN_S / 2),
        "end": seen.memory.between(seen.ended - DOWN_S / 4, seen.ended),
        "most": seen.memory.peak(seen.began, seen.rested),
    }
    for part in seen.memory.samples:
        held = ", ".join(f"{phase} {found.get(part, 0):.0f}" for phase, found in phases.items())
        lines.append(f"  {part}: MiB {held}")
    print("\n".join(lines))  # noqa: T201 - the campaign's figures, shown with -s
