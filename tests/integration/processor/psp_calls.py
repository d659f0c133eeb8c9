"""Calls to a bench's PSP, watched, or answered late."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from processor.psp.interface import Outcome, PspRequest
from tests.integration.processor.conftest import Bench


@dataclass
class UnderWay:
    now: int = 0
    most: int = 0


def counted(bench: Bench, patch: pytest.MonkeyPatch) -> UnderWay:
    """How many calls are under way at once, from now on. Each lets the others begin."""
    send, calls = bench.psp.send, UnderWay()

    async def sent(request: PspRequest, traceparent: str) -> Outcome:
        calls.now += 1
        calls.most = max(calls.most, calls.now)
        await asyncio.sleep(0)
        outcome = await send(request, traceparent)
        calls.now -= 1
        return outcome

    patch.setattr(bench.psp, "send", sent)
    return calls


def answered_late(
    bench: Bench, patch: pytest.MonkeyPatch, number: int, meanwhile: Callable[[], Awaitable[object]]
) -> None:
    """The call that is the PSP's `number`th has had its effect, and its answer comes after `meanwhile`."""
    send = bench.psp.send

    async def slow(request: PspRequest, traceparent: str) -> Outcome:
        outcome = await send(request, traceparent)
        if len(bench.psp.sent) == number:
            await meanwhile()
        return outcome

    patch.setattr(bench.psp, "send", slow)
