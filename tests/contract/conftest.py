"""Each adapter with its double running, for every test of the suite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from processor.psp.interface import PspAdapter
from processor.psp.stripe.adapter import StripePsp
from tests.contract.psp_doubles import DOUBLES, PspDouble
from tests.fixtures.one_answer import OneAnswer


@pytest.fixture(params=DOUBLES)
async def double(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[PspDouble]:
    made = DOUBLES[request.param](tmp_path)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


@pytest.fixture
async def adapter(double: PspDouble) -> AsyncIterator[PspAdapter]:
    made = double.adapter(timeout_s=1.0)
    yield made
    await made.close()


@pytest.fixture
def answers() -> OneAnswer:
    return OneAnswer()


@pytest.fixture
async def stripe(answers: OneAnswer) -> AsyncIterator[StripePsp]:
    """The adapter with `answers` for its Stripe."""
    runner = web.ServerRunner(web.Server(answers), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    made = StripePsp("sk_test_4eC39HqLyjWDarjtT1zdp7dc", url, timeout_s=2.0)
    yield made
    await made.close()
    await runner.cleanup()
