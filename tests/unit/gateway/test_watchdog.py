from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.health import Patience, Verdict, judge_commit
from gateway.watchdog import Watchdog
from tests.fixtures.shard import HeldDisk, in_process_shard


@pytest.mark.parametrize(
    ("age_s", "verdict"),
    [
        (0.0, Verdict.WELL),
        (2.0, Verdict.WELL),
        (2.1, Verdict.STALLED),
        (30.0, Verdict.STALLED),
        (31, Verdict.HUNG),
    ],
)
def test_a_commit_is_judged_by_its_age(age_s: float, verdict: Verdict) -> None:
    assert judge_commit(age_s, Patience()) is verdict


async def test_a_stalled_commit_makes_the_shard_unready_until_it_lands(tmp_path: Path) -> None:
    shard = in_process_shard(tmp_path, flusher=HeldDisk)
    flusher = shard.committer._flusher
    assert isinstance(flusher, HeldDisk)
    ended: list[bool] = []
    watchdog = Watchdog(shard.committer, shard.health, lambda: ended.append(True))

    posted = asyncio.create_task(shard.post("order-0001"))
    while not flusher.pending:
        await asyncio.sleep(0)
    watchdog.look()
    assert (await shard.send("GET", "/readyz")).status == 200

    shard.clock.advance(2.1)
    watchdog.look()
    assert (await posted).status == 503
    assert (await shard.send("GET", "/readyz")).status == 503
    assert (await shard.post("order-0002")).status == 503
    assert (await shard.get("order-0001")).status == 404, "reads go on, and show what is on disk"
    assert not ended

    flusher.complete()
    watchdog.look()
    assert (await shard.send("GET", "/readyz")).status == 200
    assert (await shard.get("order-0001")).status == 200


async def test_a_hung_commit_ends_the_process(tmp_path: Path) -> None:
    shard = in_process_shard(tmp_path, flusher=HeldDisk)
    ended: list[bool] = []
    posted = asyncio.create_task(shard.post("order-0001"))
    flusher = shard.committer._flusher
    assert isinstance(flusher, HeldDisk)
    while not flusher.pending:
        await asyncio.sleep(0)
    shard.clock.advance(31)
    Watchdog(shard.committer, shard.health, lambda: ended.append(True)).look()
    assert ended == [True]
    assert (await posted).status == 503


async def test_the_judge_outside_of_python_is_armed_seldom_and_for_longer_than_the_loop_may_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = in_process_shard(tmp_path)
    armed: list[float] = []
    monkeypatch.setattr("faulthandler.dump_traceback_later", lambda after_s, **_: armed.append(after_s))
    monkeypatch.setattr("gateway.watchdog.INTERVAL_S", 0.0)
    watchdog, looked = Watchdog(shard.committer, shard.health, lambda: None), asyncio.Event()
    left = list(range(100))
    monkeypatch.setattr(watchdog, "look", lambda: left.pop() if left else looked.set())
    task = asyncio.create_task(watchdog.run())
    async with asyncio.timeout(2):  # it is armed anew every 3 s
        await looked.wait()
    task.cancel()
    assert armed == [33.0]
