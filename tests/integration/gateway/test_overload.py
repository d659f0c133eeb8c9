"""More than it can carry, for a second, on a real shard behind a real nginx: the benchmark in small."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path

import pytest

from benchmarks.measure.observers import well_formed_refusal
from benchmarks.overload import Outcome, Wishes, overload
from benchmarks.systems import builds, catalogue
from benchmarks.systems.system import Pinning, System, nginx, start
from tests.fixtures.free_port import free_port

pytestmark = pytest.mark.skipif(builds.c_compiler() is None, reason="the generator needs a C compiler")
# Enough that two are under way at once, whatever the machine.
WISHES = Wishes(seconds=1.0, connections=64, rate=1500.0)


async def run(folder: Path, env: dict[str, str], in_flight: int) -> tuple[Outcome, float]:
    """The outcome, and how many payments the shard says are durable."""
    setup = catalogue.new_setup(folder, free_port(), 1, "httptools")
    whole = catalogue.systems(setup)[catalogue.SHARD_NGINX]
    [shard] = whole.server
    listen = setup.port("shard")
    front = nginx("front", folder, whole.target.address, [listen], 1, in_flight_per_shard=in_flight)
    system = System("small", whole.target, (replace(shard, env={**shard.env, **env}),), (front,))
    async with AsyncExitStack() as processes:
        [running] = await start(processes, [system], Pinning())
        outcome = await overload(builds.loadgen(), running, listen, WISHES)
        return outcome, _durable(listen)


def _durable(address: str) -> float:
    connection = HTTPConnection(address, timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith("tollgate_last_seq"))


@pytest.mark.parametrize(
    ("env", "in_flight"),
    [({}, 1), ({"TOLLGATE_OVERLOAD__TURN_MS_MAX": "0.000001", "TOLLGATE_OVERLOAD__LOOK_EVERY": "1"}, 512)],
    ids=["refused by nginx", "refused by the shard"],
)
async def test_under_more_than_it_can_carry_it_serves_refuses_and_tells_its_health(
    tmp_path: Path, env: dict[str, str], in_flight: int
) -> None:
    outcome, durable = await run(tmp_path, env, in_flight)
    statuses, observed = outcome.result.statuses, outcome.observed
    assert "503" in statuses
    assert set(statuses) <= {"202", "503"}, "a disk that stands still for a second serves nobody meanwhile"
    assert not any(outcome.result.failures.values()), outcome.result.failures
    assert outcome.result.unanswered == 0
    assert observed.ill_formed == []
    assert observed.unanswered == []
    assert set(observed.codes) <= {"accepted", "overloaded"}
    assert durable >= statuses.get("202", 0), "nothing was acknowledged that is not there"


def test_a_refusal_without_its_parts_is_seen() -> None:
    headers = {"content-type": "application/problem+json", "retry-after": "1"}
    body = b'{"type":"t","title":"t","status":503,"detail":"d","code":"overloaded","errors":[]}'
    assert well_formed_refusal(503, headers, body) == "overloaded"
    assert well_formed_refusal(429, headers, body) is None
    assert well_formed_refusal(503, headers | {"retry-after": "soon"}, body) is None
    assert well_formed_refusal(503, {"content-type": headers["content-type"]}, body) is None
    assert well_formed_refusal(503, headers | {"content-type": "text/html"}, body) is None
    assert well_formed_refusal(503, headers, b"<html>") is None
