"""What `up` decides before and while it waits: one sentence for each thing that can be wrong."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.fixtures.free_port import free_port
from tollgate.errors import ConfigurationError, TollgateError
from tollgate.local import launch as launching
from tollgate.local import lock
from tollgate.local.launch import Wishes, end_leftovers, launch, shut_down, why_hopeless
from tollgate.local.paths import StackPaths
from tollgate.local.ports import PortPlan
from tollgate.local.run_state import PartState, PartStatus, RunState
from tollgate.local.stack import new_ring
from tollgate.ring_file import write_ring_file


def unseen(_done: int, _total: int) -> None:
    return None


def state(*parts: PartState, topics_ready: bool = True) -> RunState:
    return RunState(run_id="r", supervisor_pid=1, started_at=0, parts=list(parts), topics_ready=topics_ready)


def part(name: str, status: PartStatus = PartStatus.READY, **fields: object) -> PartState:
    return PartState.model_validate({"name": name, "log": f"/logs/{name}.log", "status": status, **fields})


def reason(seen: RunState | None, *, timed_out: bool = False) -> str | None:
    return why_hopeless(seen, timed_out=timed_out, timeout_s=120)


def test_waiting_goes_on_while_parts_come_up() -> None:
    assert reason(None) is None
    assert (
        reason(state(part("kafka", PartStatus.STARTING), part("shard-0", PartStatus.WAITING, restarts=3)))
        is None
    )


def test_a_part_that_dies_at_every_start_ends_the_wait_early_and_is_named_with_its_log() -> None:
    dying = part("shard-0", PartStatus.WAITING, restarts=8, detail="ended with code 1")
    sentence = reason(state(part("kafka"), dying))
    assert sentence == "shard-0 ended with code 1 at every start. Read /logs/shard-0.log."


def test_a_part_that_was_ready_once_is_never_given_up() -> None:
    assert reason(state(part("shard-0", PartStatus.WAITING, restarts=50, was_ready=True))) is None


def test_after_the_bound_the_first_part_that_is_not_ready_is_named() -> None:
    sentence = reason(state(part("kafka"), part("cdc-0", PartStatus.UNREADY)), timed_out=True)
    assert sentence == "cdc-0 was not ready within 120 s. Read /logs/cdc-0.log."
    topics = reason(state(part("kafka"), topics_ready=False), timed_out=True)
    assert topics == "Kafka's topics were not ready within 120 s."


def test_a_port_in_use_is_one_sentence_and_leaves_nothing_locked(tmp_path: Path) -> None:
    paths = StackPaths(tmp_path)
    port = free_port()
    with socket.create_server(("127.0.0.1", port)), pytest.raises(ConfigurationError, match=f"Port {port}"):
        launch(paths, Wishes(port=port, port_base=25000), unseen, with_caller=False)
    assert not lock.is_held(paths.lock)
    assert not paths.ring.exists()


def test_too_little_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "DISK_FREE_MIN", 2**60)
    with pytest.raises(ConfigurationError, match="MB are free under"):
        launch(StackPaths(tmp_path), Wishes(), unseen, with_caller=False)


def test_a_folder_that_can_not_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="can't be written"):
        launch(StackPaths(tmp_path / "file" / "data"), Wishes(), unseen, with_caller=False)


def test_a_second_launch_starts_nothing(tmp_path: Path) -> None:
    paths = StackPaths(tmp_path)
    descriptor = lock.acquire(paths.lock)
    assert descriptor is not None
    with open(descriptor):
        assert launch(paths, Wishes(), unseen, with_caller=False) is None


def test_shards_of_a_ring_keep_their_ports_and_their_number(tmp_path: Path) -> None:
    paths = StackPaths(tmp_path)
    write_ring_file(paths.ring, new_ring(PortPlan(base=25000), 3))
    with pytest.raises(ConfigurationError, match="Use --port-base 25000"):
        launch(paths, Wishes(port_base=26000), unseen, with_caller=False)
    ring, ports, notes = launching.plan(paths, Wishes(shards=5))
    assert (len(ring.shards), ports.base) == (3, 25000)
    assert "has 3 shards and keeps them" in notes[0]
    assert launching.plan(paths, Wishes(shards=3))[2] == ()


def test_ending_what_never_ran_is_harmless(tmp_path: Path) -> None:
    paths = StackPaths(tmp_path / "nothing")
    assert shut_down(paths) is False
    assert end_leftovers(paths) is False
    assert not paths.data_dir.exists()


def test_every_error_of_a_launch_is_one_that_the_command_prints(tmp_path: Path) -> None:
    paths = StackPaths(tmp_path)
    paths.ring.write_text("{}")
    with pytest.raises(TollgateError, match="ring file"):
        launch(paths, Wishes(), unseen, with_caller=False)
