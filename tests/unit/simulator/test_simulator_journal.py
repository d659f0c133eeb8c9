"""The ledger's file: what a commit returned for is there, a torn tail is not, and a hole stops everything."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tollgate.errors import ConfigurationError, CorruptionError, OperationalError
from tollgate.local.simulator.journal import Journal


def _recovered(path: Path) -> list[Any]:
    journal = Journal(path)
    try:
        return list(journal.recover())
    finally:
        journal.close()


async def _write(path: Path, groups: list[list[int]]) -> None:
    journal = Journal(path)
    list(journal.recover())
    for group in groups:
        for number in group:
            journal.append({"number": number})
        await journal.commit()
    journal.close()


def _numbers(records: list[Any]) -> list[int]:
    return [record["number"] for record in records]


async def test_what_was_committed_is_recovered_in_order(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    await _write(path, [[1, 2], [3]])
    await _write(path, [[4]])
    assert _numbers(_recovered(path)) == [1, 2, 3, 4]


async def test_a_tail_torn_at_any_byte_loses_the_last_group_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    await _write(path, [[1, 2]])
    whole = path.read_bytes()
    await _write(path, [[3, 4]])
    both = path.read_bytes()
    for length in range(len(whole), len(both)):
        path.write_bytes(both[:length])
        assert _numbers(_recovered(path)) == [1, 2]
        assert path.read_bytes() == whole


async def test_writing_goes_on_after_a_torn_tail(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    await _write(path, [[1], [2]])
    path.write_bytes(path.read_bytes()[:-3])
    await _write(path, [[5]])
    assert _numbers(_recovered(path)) == [1, 5]


async def test_damage_before_the_last_line_is_corruption(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    await _write(path, [[1], [2], [3]])
    damaged = bytearray(path.read_bytes())
    damaged[12] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(CorruptionError, match="damaged at byte 0"):
        _recovered(path)
    assert path.read_bytes() == damaged


async def test_many_commits_at_once_share_their_syncs(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    journal = Journal(path)

    async def one(number: int) -> None:
        journal.append({"number": number})
        await journal.commit()

    await asyncio.gather(*(one(number) for number in range(200)))
    journal.close()
    assert len(path.read_bytes().splitlines()) < 10
    assert _numbers(_recovered(path)) == list(range(200))


async def test_a_commit_never_returns_before_the_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, release = threading.Event(), threading.Event()

    def slow_sync(_fd: int) -> None:
        entered.set()
        release.wait(10)

    journal = Journal(tmp_path / "ledger")
    monkeypatch.setattr("tollgate.local.simulator.journal.os.fdatasync", slow_sync)
    journal.append({"number": 1})
    first = asyncio.create_task(journal.commit())
    assert await asyncio.to_thread(entered.wait, 10)
    journal.append({"number": 2})
    second = asyncio.create_task(journal.commit())
    await asyncio.sleep(0)
    assert not first.done()
    release.set()
    await asyncio.gather(first, second)
    journal.close()
    assert len((tmp_path / "ledger").read_bytes().splitlines()) == 2


async def test_a_waiter_that_goes_away_disturbs_nobody(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "ledger")
    journal.append({"number": 1})
    leaving, staying = asyncio.create_task(journal.commit()), asyncio.create_task(journal.commit())
    await asyncio.sleep(0)
    leaving.cancel()
    await staying
    journal.close()
    assert _numbers(_recovered(tmp_path / "ledger")) == [1]


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full runs out of space on Linux only")
async def test_after_a_failed_write_no_commit_ever_returns(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "ledger")
    real, journal._fd = journal._fd, os.open("/dev/full", os.O_WRONLY)
    journal.append({"number": 1})
    with pytest.raises(OperationalError, match="No space left"):
        await journal.commit()
    os.close(journal._fd)
    journal._fd = real
    with pytest.raises(OperationalError):
        await journal.commit()
    journal.close()


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    first = Journal(tmp_path / "ledger")
    with pytest.raises(ConfigurationError, match="another simulator"):
        Journal(tmp_path / "ledger")
    first.close()
