"""The gate before everything else, and what passes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.http.connection_bounds import FILES_FOR_THE_REST, connections_possible
from gateway.load_shedding import Gate
from gateway.ring import Ring
from gateway.settings import CommitSettings, OverloadSettings
from tests.fixtures.shard import (
    BODY,
    HeldDisk,
    InProcessShard,
    assert_problem,
    header,
    in_process_shard,
)
from tollgate.clock import FakeClock
from tollgate.errors import ConfigurationError


class Loop:
    """Ends its turn when the test says so."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[], Any]] = []

    def call_soon(self, callback: Callable[[], Any]) -> None:
        self.callbacks.append(callback)

    def end_turn(self) -> None:
        callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            callback()


def gate(ring: Ring[str] | None = None, look_every: int = 1) -> tuple[Gate, FakeClock, Loop]:
    clock, loop = FakeClock(), Loop()
    held: Ring[str] = Ring(4, 100) if ring is None else ring
    return Gate(held, clock, loop.call_soon, turn_ms_max=50, look_every=look_every), clock, loop


def test_a_turn_takes_requests_until_its_time_is_over_and_the_next_turn_takes_them_again() -> None:
    shut, clock, loop = gate()
    assert not shut.is_shut()
    clock.advance(0.049)
    assert not shut.is_shut()
    clock.advance(0.001)
    assert shut.is_shut()
    assert shut.is_shut()
    loop.end_turn()
    assert not shut.is_shut()


def test_a_turn_is_timed_from_its_own_first_request() -> None:
    shut, clock, loop = gate()
    shut.is_shut()
    loop.end_turn()
    clock.advance(10)
    assert not shut.is_shut(), "an idle shard is not a loaded one"
    clock.advance(0.049)
    assert not shut.is_shut()


def test_a_turn_asks_once_to_be_told_of_its_end() -> None:
    shut, _, loop = gate()
    for _ in range(5):
        shut.is_shut()
    assert len(loop.callbacks) == 1


def test_it_looks_now_and_then_while_it_is_open_and_at_everyone_while_it_is_shut() -> None:
    shut, clock, loop = gate(look_every=4)
    assert [shut.is_shut() for _ in range(4)] == [False] * 4
    clock.advance(1)
    assert [shut.is_shut() for _ in range(9)] == [True] * 9
    loop.end_turn()
    assert [shut.is_shut() for _ in range(4)] == [False] * 4
    clock.advance(1)
    assert shut.is_shut()


def test_a_full_ring_shuts_the_gate_until_it_is_drained() -> None:
    for slots, size in ((2, 1), (9, 50)):
        ring: Ring[str] = Ring(slots, 100)
        shut, _, _ = gate(ring)
        ring.push("a", size)
        assert not shut.is_shut()
        ring.push("b", size)
        assert shut.is_shut()
        ring.drain(1)
        assert not shut.is_shut()


@pytest.fixture
async def shard(tmp_path: Path) -> InProcessShard:
    commit = CommitSettings(ring_slots=2, batch_count_max=1)
    overload = OverloadSettings(look_every=1)
    return in_process_shard(tmp_path, flusher=HeldDisk, commit=commit, overload=overload)


async def fill(shard: InProcessShard) -> list[Any]:
    """One in flight and two in the ring. Returns what is to be awaited once the disk goes on."""
    flusher = shard.committer._flusher
    assert isinstance(flusher, HeldDisk)
    waiting = []
    for number in range(3):
        waiting.append(asyncio.create_task(shard.post(f"order-000{number}")))
        while not flusher.pending or len(shard.committer.ring) < number:
            await asyncio.sleep(0)
    return waiting


async def finish(shard: InProcessShard, waiting: list[Any]) -> list[int]:
    flusher = shard.committer._flusher
    assert isinstance(flusher, HeldDisk)
    for _ in waiting:
        while not flusher.pending:  # the next commit begins a turn of the loop later
            await asyncio.sleep(0)
        flusher.complete()
    return [(await task).status for task in waiting]


async def test_a_full_ring_refuses_everything_but_who_looks_after_the_shard(shard: InProcessShard) -> None:
    waiting = await fill(shard)
    assert len(shard.committer.ring) == 2
    for refused in (await shard.post("order-0009"), await shard.get("order-0001")):
        assert_problem(refused, 503, "overloaded")
        assert header(refused, "cache-control") == "no-store"
    assert header(await shard.get("order-0001"), "access-control-allow-origin") == "*"
    assert_problem(await shard.send("GET", "/no/such/path"), 503, "overloaded")
    for path in ("/livez", "/readyz", "/metrics"):
        assert (await shard.send("GET", path)).status == 200, path
    assert b'tollgate_refusals_total{reason="turn"} 4.0' in shard.metrics.render()
    assert await finish(shard, waiting) == [202, 202, 202]
    assert (await shard.get("order-0001")).status == 200


async def test_a_refusal_is_decided_before_credentials_and_body_are_looked_at(shard: InProcessShard) -> None:
    waiting = await fill(shard)
    assert_problem(await shard.send("POST", "/v1/payments", body=b"{"), 503, "overloaded")
    assert_problem(await shard.post("order-0009", BODY | {"cvv": "123"}), 503, "overloaded")
    await finish(shard, waiting)


async def test_one_refusal_leaves_nothing_on_the_next(shard: InProcessShard) -> None:
    waiting = await fill(shard)
    first, second = await shard.get("order-0009"), await shard.get("order-0009")
    assert first == second
    assert len({name for name, _ in second.headers}) == len(second.headers)
    await finish(shard, waiting)


def test_connections_leave_files_for_the_store() -> None:
    assert connections_possible(8192, 64, 1_000_000) == 8192
    assert connections_possible(8192, 64, 4096) == 4096 - FILES_FOR_THE_REST - 64
    with pytest.raises(ConfigurationError, match=r"ulimit -n\) to 9280"):
        connections_possible(8192, 64, 1024)
