"""The template's adapter with its double, as the contract suite wants them: an entry of `DOUBLES`."""

from __future__ import annotations

from pathlib import Path

import aiohttp

from processor.psp.template import TemplatePsp
from tests.fixtures.template_double import TemplateDouble


class TemplateSuiteDouble:
    """The payment methods that make the double do what the suite wants, and its ledger's words."""

    approves = "pays"
    declines = "refuses"
    answers_never_at_first = "silent"
    resets_at_first = "resets"
    unavailable_once = "busy"
    needs_action = "redirects"

    def __init__(self, _folder: Path) -> None:
        self._psp = TemplateDouble()

    def adapter(self, timeout_s: float) -> TemplatePsp:
        return TemplatePsp("a key", self._psp.url, timeout_s)

    async def effects(self, checkout_id: str) -> int:
        return sum(reference == f"demo/{checkout_id}" for reference, _, _ in self._psp.effects)

    async def moved(self, checkout_id: str, effect: str) -> int:
        of = (f"demo/{checkout_id}", effect)
        return sum(amount for reference, kind, amount in self._psp.effects if (reference, kind) == of)

    async def visit(self, url: str, *, approves: bool) -> None:
        form = {"outcome": "approve" if approves else "decline"}
        async with aiohttp.ClientSession(raise_for_status=True) as payer:
            await payer.post(url, data=form)

    async def fail_with_500(self) -> None:
        self._psp.fails = True

    async def behave(self) -> None:
        self._psp.fails = False

    async def vanish(self) -> None:
        await self._psp.stop()

    async def start(self) -> None:
        await self._psp.start()

    async def stop(self) -> None:
        await self._psp.stop()
