"""Faults of every kind over a whole stack under load, then rest, then `tollgate verify`: nothing is lost,
nothing doubled, nothing told that is not so.

The fixed part of the default run; `make campaign` plays as many minutes as asked for.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import islice
from pathlib import Path

import pytest

from tests.fault.campaign import Results
from tests.fault.storm.allowance import WINDOW_S, calls_too_many
from tests.fault.storm.mutated import PATCHES, mutated_tree
from tests.fault.storm.plan import AT_ONCE, CALM_S, Fault, Kind, storm_of
from tests.fault.storm.report import Round, document, findings_of, table
from tests.fault.storm.results import Run
from tests.fault.storm.round import Storm
from tests.fault.storm.shoppers import Told
from tests.fault.storm.strikes import Struck
from tests.fault.storm.wires import Wire
from tests.fault.storm.wishes import Again, Payer, wishes
from tests.fixtures.faulty_disk import cut_power_in_place
from tests.fixtures.stack import stack_folder
from tollgate.clock import rfc3339

SEED = 20261128
SECONDS = 90.0


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that other users may enter, as Postgres needs."""
    with stack_folder() as made:
        yield made


@pytest.mark.fault
@pytest.mark.timeout(600)
def test_after_a_storm_all_witnesses_agree(folder: Path) -> None:
    assert len({fault.kind for fault in storm_of(SEED, 0, SECONDS)}) >= 12
    played = Storm(folder, SECONDS).play(SEED, 0)
    assert played.told.accepted
    assert sum(bool(one.met) for one in played.struck) > len(played.plan) / 2, table(played)


def test_a_plan_has_every_kind_and_keeps_its_bounds() -> None:
    met: Counter[Kind] = Counter()
    for number in range(20):
        plan = storm_of(7, number, 300.0)
        assert plan == storm_of(7, number, 300.0)
        for fault in plan:
            met[fault.kind] += 1
            assert 0 < fault.at_s <= 300.0 - CALM_S
            others = [one for one in plan if one is not fault and one.at_s <= fault.at_s < one.until_s]
            assert len(others) < AT_ONCE
            assert all(fault.touches().isdisjoint(one.touches()) for one in others), (fault, others)
    assert set(met) == set(Kind)
    assert storm_of(7, 0, 300.0) != storm_of(8, 0, 300.0)


def test_clients_wish_for_every_method_and_everything_that_a_payment_allows() -> None:
    wanted = list(islice(wishes("run", 1, 0), 500))
    assert wanted == list(islice(wishes("run", 1, 0), 500))
    assert len({wish.checkout_id for wish in wanted}) == 500
    methods = {wish.body["payment_method"].rstrip("0123456789") for wish in wanted}
    assert methods == {
        "pm_ok", "pm_declined", "pm_action", "pm_slow_", "pm_unavailable_", "pm_lost", "pm_reset",
        "pm_late_webhook", "tok_of_the_shop",
    }  # fmt: skip
    assert {wish.payer for wish in wanted} == set(Payer)
    assert {wish.again for wish in wanted} == set(Again)
    assert {wish.ending is None or wish.ending > 0 for wish in wanted} == {True, False}
    assert {wish.body["capture"] for wish in wanted} == {"automatic", "manual"}
    assert any(None in wish.refunds and len(wish.refunds) == 2 for wish in wanted)
    assert all(wish.other_body()["amount"] != wish.body["amount"] for wish in wanted)


def calls_at(*seconds: float) -> list[dict[str, object]]:
    return [{"at": rfc3339(round(at * 1e6))} for at in seconds]


def test_calls_beyond_the_budget_are_found_and_a_burst_that_was_held_back_is_not() -> None:
    steady = [n / 10 for n in range(600)]  # 10 a second for a minute
    assert calls_too_many(calls_at(*steady), 10.0) == []
    held_back = [at if not 20 <= at < 22.5 else 22.5 for at in steady]
    assert calls_too_many(calls_at(*held_back), 10.0) == []
    doubled = [at for at in steady if 20 <= at < 20 + WINDOW_S]
    (found,) = calls_too_many(calls_at(*sorted(steady + doubled)), 10.0)
    assert "200 calls" in found


@pytest.mark.parametrize("patch", sorted(PATCHES.glob("*.patch")), ids=lambda patch: patch.stem)
def test_every_mutation_still_fits_the_sources(patch: Path, tmp_path: Path) -> None:
    mutated_tree(patch, tmp_path / "tree")


@asynccontextmanager
async def echo_behind_a_wire() -> AsyncIterator[Wire]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(100):
                writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    wire = Wire("part>echo", server.sockets[0].getsockname()[1])
    await wire.open()
    try:
        yield wire
    finally:
        await wire.close()
        server.close()


async def test_a_wire_carries_stalls_is_cut_and_refuses() -> None:
    async with echo_behind_a_wire() as wire:
        reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"
        wire.stall()
        writer.write(b"two")
        waiting = asyncio.create_task(reader.readexactly(3))
        done, _ = await asyncio.wait({waiting}, timeout=0.1)
        assert not done
        wire.heal()
        assert await waiting == b"two"
        assert wire.cut() == 1
        with suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        await wire.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", wire.port)
        await wire.open()
        reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
        writer.write(b"again")
        assert await reader.readexactly(5) == b"again"
        writer.close()
        assert wire.asked == 2


async def test_a_preloaded_part_is_led_over_its_wire(disk_shim: Path) -> None:
    async with echo_behind_a_wire() as wire:
        script = (
            "import socket; end = socket.create_connection(('127.0.0.1', 18999)); "
            "end.sendall(b'hello'); print(end.recv(5).decode())"
        )
        led = {"LD_PRELOAD": str(disk_shim), "TOLLGATE_SHIM_CONNECT": f"9=10,18999={wire.port}"}
        part = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, env={**os.environ, **led}, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await part.communicate()
        assert said == b"hello\n"
        assert wire.asked == 1


def test_a_power_cut_in_place_leaves_what_was_synced(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    (tmp_path / "watermark").write_bytes(b"mapped")
    for name, size in (("LOCK", 0), ("000001.log", 100), ("000002.sst", 50), ("000003.log", 10)):
        (tmp_path / "db" / name).write_bytes(bytes(size))
    kept = {"000001.log": 60, "000002.sst": 50}
    synced = {(tmp_path / "db" / name).stat().st_ino: size for name, size in kept.items()}
    assert cut_power_in_place(tmp_path, synced) == 40 + 10
    left = {path.name: path.stat().st_size for path in (tmp_path / "db").iterdir()}
    assert left == {"LOCK": 0, **kept}
    assert not (tmp_path / "watermark").exists()


def test_every_finding_of_verify_is_a_problem_but_what_is_allowed_by_name() -> None:
    def rule(found: int) -> dict[str, object]:
        return {"says": "", "checked": 9, "found": found, "first": [{"id": "a", "detail": "b"}]}

    verdict = {"rules": {"I1 lost": rule(2), "I2 double": rule(0), "I5 version went back": rule(1)}}
    (problem,) = findings_of(verdict, [])
    assert problem.startswith("verify: I1 lost: 2 of 9")
    (told,) = findings_of(verdict, [], allowed=True)
    assert "went back" in told


def test_the_order_of_statuses_is_held_unless_a_processors_clock_was_wrong() -> None:
    verdict = {"rules": {"I5 status order": {"checked": 9, "found": 1, "first": []}}}

    def stepped(part: str) -> list[Struck]:
        return [Struck(Fault(1.0, Kind.CLOCK, part, 2.0, 60.0), 1.0, 3.0, part, 0)]

    assert findings_of(verdict, stepped("shard-0"))
    assert not findings_of(verdict, stepped("processor-1"))


def test_a_report_says_what_met_what_and_counts_add_up(tmp_path: Path) -> None:
    kill, freeze = Fault(1.0, Kind.KILL, "kafka"), Fault(2.0, Kind.FREEZE, "nginx", 1.0)
    struck = [Struck(kill, 1.0, 1.0, "kafka, pid 1", 3), Struck(freeze, 2.0, 3.0, "", 0)]
    told = Told(payments=3, accepted={"a": 1, "b": 2}, waits=[0.1, 0.2])
    told.answers.update({"POST payments 202": 2, "POST payments no answer": 1})
    played = Round(SEED, 0, [kill, freeze], struck, told, 60.0, 5.0, problems=["verify: lost"])
    assert "met nothing" in table(played)
    assert "FOUND: verify: lost" in table(played)
    assert document(played)["faults"][0]["met"] == "kafka, pid 1"
    results = Results.load("make campaign", tmp_path / "results.json", Run)
    run = results.begin(Run("commit", SEED, 0, "a machine"))
    for _ in range(2):
        run.add(played)
    results.save()
    total = Results.load("make campaign", tmp_path / "results.json", Run).total()
    assert total.startswith(
        "2.0 minutes, 4 faults (2 freeze, 2 kill), 4 payments accepted, 6 requests, 0 failures"
    )
