"""Each adapter with its double running, for every test of the suite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from processor.psp.interface import PspAdapter
from tests.contract.psp_doubles import DOUBLES, PspDouble


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
