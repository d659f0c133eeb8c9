"""The supervisor's socket: one command at a time is asked and answered, whatever becomes of the asker."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.unit.local.test_ring_changer import FakeHands, World, ids
from tollgate.errors import OperationalError
from tollgate.local.control import Control, ask


def is_socket(path: Path) -> bool:
    return path.is_socket()


@asynccontextmanager
async def control(path: Path, hands: FakeHands) -> AsyncIterator[list[int]]:
    """What was published at the end of each command: the ring's version then."""
    published: list[int] = []
    serving = asyncio.create_task(
        Control(path, hands.changer, lambda: published.append(hands.changer.ring.version)).serve()
    )
    async with asyncio.timeout(5):
        while not is_socket(path):
            await asyncio.sleep(0)
    try:
        yield published
    finally:
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving


async def asked(
    path: Path, command: dict[str, Any], notes: list[str] | None = None, timeout_s: float = 10
) -> dict[str, Any]:
    say = (notes if notes is not None else []).append
    return await asyncio.to_thread(ask, path, command, say, timeout_s)


async def test_a_command_is_carried_out_and_published_before_its_answer(tmp_path: Path) -> None:
    hands, notes, path = World().start_supervisor(), list[str](), tmp_path / "control.sock"
    async with control(path, hands) as published:
        assert await asked(path, {"do": "add"}, notes) == {"shard": 2, "name": "127.0.0.1:7102"}
        assert published == [2]
        assert await asked(path, {"do": "remove", "shard": 0}) == {"shard": 0}
        assert published == [2, 4]
    assert notes == ["shard 2 starts", "ring 2 spreads"]
    assert not path.exists()


async def test_the_socket_is_its_owners_alone_and_takes_the_place_of_one_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.touch()
    path.chmod(0o666)
    async with control(path, World().start_supervisor()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_data_folder_may_lie_as_deep_as_it_likes(tmp_path: Path) -> None:
    path = tmp_path / ("deep" * 30) / "control.sock"
    path.parent.mkdir()
    before = set(os.listdir("/proc/self/fd"))
    async with control(path, World().start_supervisor()):
        assert (await asked(path, {"do": "add"}))["shard"] == 2
    assert set(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ({"do": "remove", "shard": 9}, "no shard 9 on the ring"),
        ({"do": "remove", "shard": "0"}, "knows no command"),
        ({"do": "dance"}, "knows no command"),
    ],
)
async def test_what_can_not_be_done_is_said(tmp_path: Path, command: dict[str, Any], says: str) -> None:
    path = tmp_path / "control.sock"
    async with control(path, World().start_supervisor()):
        with pytest.raises(OperationalError, match=says):
            await asked(path, command)
        assert (await asked(path, {"do": "add"}))["shard"] == 2, "the supervisor goes on"


async def test_what_was_begun_goes_on_when_the_asker_goes_away(tmp_path: Path) -> None:
    world = World()
    hands, path = world.start_supervisor(), tmp_path / "control.sock"
    hands.go_on.clear()
    async with control(path, hands) as published:
        with pytest.raises(OperationalError, match=r"Not complete after 0.05 s\. The supervisor goes on"):
            await asked(path, {"do": "add"}, timeout_s=0.05)
        await hands.began.wait()
        hands.go_on.set()
        async with asyncio.timeout(5):
            while not published:
                await asyncio.sleep(0)
    assert ids(world.file) == [0, 1, 2]
    world.check(hands)


async def test_a_supervisor_that_ends_says_that_it_was_not_done(tmp_path: Path) -> None:
    hands, path = World().start_supervisor(), tmp_path / "control.sock"
    hands.go_on.clear()
    async with control(path, hands):
        asking = asyncio.create_task(asked(path, {"do": "add"}))
        await hands.began.wait()
    with pytest.raises(OperationalError, match="finished after the next `tollgate up`"):
        await asking


async def test_without_a_supervisor_there_is_nobody_to_ask(tmp_path: Path) -> None:
    with pytest.raises(OperationalError, match=r"can't be asked at .*control\.sock"):
        await asked(tmp_path / "control.sock", {"do": "add"})
