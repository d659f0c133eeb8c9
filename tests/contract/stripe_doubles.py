"""Stripe's adapter with a Stripe to call: localstripe, which keeps no keys, or one that does, in memory."""

from __future__ import annotations

from pathlib import Path

import aiohttp

from processor.psp.stripe.adapter import StripePsp
from tests.fixtures.localstripe import API_KEY, Localstripe, shared_localstripe
from tests.fixtures.stripe_front import (
    APPROVES,
    DECLINES,
    LOST,
    NEEDS_ACTION,
    RESET,
    UNAVAILABLE,
    StripeBehind,
    StripeFront,
    effects_of,
)
from tests.fixtures.stripe_in_memory import StripeInMemory


class StripeDouble:
    approves = APPROVES
    declines = DECLINES
    answers_never_at_first = LOST
    resets_at_first = RESET
    unavailable_once = UNAVAILABLE
    needs_action = NEEDS_ACTION

    def __init__(self, behind: StripeBehind) -> None:
        self._behind = behind
        self._front = StripeFront(behind)

    def adapter(self, timeout_s: float) -> StripePsp:
        return StripePsp(API_KEY, self._front.url, timeout_s, return_url="https://shop.example/back")

    async def effects(self, checkout_id: str) -> int:
        return len(await effects_of(self._behind, f"demo/{checkout_id}"))

    async def moved(self, checkout_id: str, effect: str) -> int:
        found = await effects_of(self._behind, f"demo/{checkout_id}")
        return sum(amount for kind, amount in found if kind == effect)

    async def visit(self, url: str, *, approves: bool) -> None:
        form = {"outcome": "approve" if approves else "decline"}
        async with aiohttp.ClientSession(raise_for_status=True) as payer:
            await payer.get(url)
            await payer.post(url, data=form)

    async def fail_with_500(self) -> None:
        self._front.fails = True

    async def behave(self) -> None:
        self._front.fails = False

    async def vanish(self) -> None:
        await self._front.stop()

    async def start(self) -> None:
        await self._front.start()

    async def stop(self) -> None:
        await self._front.stop()


class StripeWithKeys(StripeDouble):
    def __init__(self, _folder: Path) -> None:
        super().__init__(StripeInMemory())


class StripeWithoutKeys(StripeDouble):
    def __init__(self, _folder: Path) -> None:
        self._localstripe = Localstripe(shared_localstripe())
        super().__init__(self._localstripe)

    async def start(self) -> None:
        await self._localstripe.clear()
        await super().start()
