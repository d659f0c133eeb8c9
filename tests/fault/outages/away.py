"""How a part of the running stack is really away: killed and not started again, standing still, or, the PSP
alone, closing every connection. Whatever it was, it is over when the context ends.
"""

from __future__ import annotations

import asyncio
import enum
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final, NamedTuple

import aiohttp
import psutil

from tests.fixtures.stack import RunningStack


class How(enum.StrEnum):
    KILLED = "killed"  # nobody listens
    FROZEN = "frozen"  # connections are made, and nobody answers
    CLOSING = "closing"  # the simulator's scenario `down`


class Outage(NamedTuple):
    part: str  # as stack.json names it
    how: How

    def __str__(self) -> str:
        return f"{self.part} {self.how}"


OUTAGES: Final = (
    Outage("postgres", How.KILLED),
    Outage("kafka", How.KILLED),
    Outage("psp_simulator", How.KILLED),
    Outage("psp_simulator", How.CLOSING),
    Outage("postgres", How.FROZEN),
    Outage("kafka", How.FROZEN),
    Outage("psp_simulator", How.FROZEN),
)


@asynccontextmanager
async def away(stack: RunningStack, outage: Outage) -> AsyncIterator[None]:
    match outage.how:
        case How.KILLED:
            with _held_down(stack, outage.part):
                yield
        case How.FROZEN:
            with _standing_still(_tree(stack.pids[outage.part])):
                yield
        case How.CLOSING:
            await _scenario(stack, down=True)
            try:
                yield
            finally:
                await _scenario(stack, down=False)


@contextmanager
def _held_down(stack: RunningStack, part: str) -> Iterator[None]:
    """The supervisor stands still meanwhile: it would start the part again within 0.1 s."""
    with _standing_still([psutil.Process(stack.state.supervisor_pid)]):
        for process in _tree(stack.pids[part]):
            with suppress(psutil.NoSuchProcess):  # Postgres' backends end with their parent
                process.kill()
        yield


@contextmanager
def _standing_still(processes: list[psutil.Process]) -> Iterator[None]:
    for process in processes:
        os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)


def _tree(pid: int) -> list[psutil.Process]:
    """The parent first, so that it makes no more of them. Postgres' backends lead groups of their own."""
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


async def _scenario(stack: RunningStack, **knobs: bool) -> None:
    async with (
        asyncio.timeout(10),
        aiohttp.ClientSession(raise_for_status=True) as session,
        session.post(f"{stack.json.psp_simulator_url}/_scenario", json=knobs),
    ):
        pass
