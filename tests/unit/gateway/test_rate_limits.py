"""GCRA against its definition, and what a merchant over its limit hears."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.rate_limits import Rate, RateLimit
from gateway.settings import LimitsSettings
from tests.fixtures.shard import InProcessShard, assert_problem, document, header, in_process_shard

ID = "order-0001"


@pytest.mark.parametrize("burst", [1, 2, 7])
def test_a_burst_is_taken_and_not_one_more(burst: int) -> None:
    limit = RateLimit(Rate(10, burst), 9)
    waits = [limit.wait_s("a", 5.0) for _ in range(burst + 1)]
    assert waits[:-1] == [0.0] * burst
    assert waits[-1] == pytest.approx(0.1, abs=1e-5)


def test_a_refused_request_costs_nothing_and_the_wait_it_is_told_is_enough() -> None:
    limit = RateLimit(Rate(10, 3), 9)
    for _ in range(3):
        limit.wait_s("a", 0.0)
    waits = {limit.wait_s("a", 0.04) for _ in range(5)}
    assert len(waits) == 1
    assert limit.wait_s("a", 0.04 + waits.pop()) == 0.0
    assert limit.wait_s("a", 0.101) > 0


def test_one_merchant_does_not_use_up_anothers_limit() -> None:
    limit = RateLimit(Rate(1, 1), 9)
    assert [limit.wait_s("a", 0.0) > 0, limit.wait_s("b", 0.0) > 0, limit.wait_s("a", 0.0) > 0] == [
        False,
        False,
        True,
    ]


def test_who_has_not_asked_for_the_longest_time_is_forgotten_first() -> None:
    limit = RateLimit(Rate(1, 2), 2)
    for name in ("a", "b", "a", "c"):
        assert limit.wait_s(name, 0.0) == 0.0
    assert len(limit) == 2
    assert limit.wait_s("a", 0.0) > 0, "remembered: it asked after b"
    for number in range(1000):
        limit.wait_s(f"m{number}", 0.0)
    assert len(limit) == 2


@given(
    st.integers(1, 50),
    st.integers(1, 8),
    st.lists(st.floats(0, 3, allow_nan=False), min_size=1, max_size=60),
)
def test_in_no_stretch_of_time_more_is_taken_than_burst_and_rate_allow(
    per_second: int, burst: int, gaps: list[float]
) -> None:
    limit, now, taken = RateLimit(Rate(per_second, burst), 1), 0.0, []
    for gap in gaps:
        now += gap
        if limit.wait_s("a", now) == 0.0:
            taken.append(now)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            stretch = taken[last] - taken[first]
            assert last - first + 1 <= burst + per_second * (stretch + 1e-5)


@given(st.integers(1, 50), st.integers(1, 8))
def test_who_keeps_to_the_rate_is_never_refused(per_second: int, burst: int) -> None:
    limit = RateLimit(Rate(per_second, burst), 1)
    assert all(limit.wait_s("a", number / per_second) == 0.0 for number in range(200))


async def advance(shard: InProcessShard, seconds: float) -> None:
    """Between two turns of the loop: one that lasted as long would refuse."""
    await asyncio.sleep(0)
    shard.clock.advance(seconds)


async def limited(tmp_path: Path, **limits: Any) -> InProcessShard:
    return in_process_shard(tmp_path, limits=LimitsSettings(**limits))


async def test_a_merchant_over_its_limit_hears_when_to_come_again(tmp_path: Path) -> None:
    shard = await limited(tmp_path, key_post_per_second=0.25, key_post_burst=2)
    assert [(await shard.post(f"order-000{n}")).status for n in range(2)] == [202, 202]
    refused = await shard.post("order-0009")
    assert_problem(refused, 429, "rate_limited")
    assert header(refused, "retry-after") == "4"
    assert b'tollgate_refusals_total{reason="key_rate"} 1.0' in shard.metrics.render()
    assert (await shard.get("order-0001")).status == 200, "reading has a limit of its own"
    await advance(shard, 3.9)
    again = await shard.post("order-0009")
    assert (again.status, header(again, "retry-after")) == (429, "1")
    await advance(shard, 0.1)
    assert (await shard.post("order-0009")).status == 202


async def test_reading_is_limited_by_key_and_a_browser_is_not_its_merchant(tmp_path: Path) -> None:
    shard = await limited(tmp_path, key_get_per_second=1, key_get_burst=1)
    secret = document(await shard.post(ID))["client_secret"]
    assert (await shard.get(ID)).status == 200
    refused = await shard.get(ID)
    assert_problem(refused, 429, "rate_limited")
    assert header(refused, "access-control-allow-origin") == "*"
    assert [(await shard.get(ID, query=f"client_secret={secret}")).status for _ in range(3)] == [200] * 3
    assert (await shard.post("order-0002")).status == 202


async def test_who_is_not_known_uses_up_nobodys_limit(tmp_path: Path) -> None:
    shard = await limited(tmp_path, key_post_per_second=1, key_post_burst=1)
    wrong = ("Authorization", "Bearer tg_sk_of_nobody_at_all")
    for _ in range(3):
        assert (await shard.send("POST", "/v1/payments", wrong, body=b"{}")).status in (401, 503)
    assert (await shard.post(ID)).status == 202


async def test_limits_are_off_unless_they_are_set(tmp_path: Path) -> None:
    shard = in_process_shard(tmp_path)
    assert {(await shard.post(f"order-{n:04d}")).status for n in range(300)} == {202}
