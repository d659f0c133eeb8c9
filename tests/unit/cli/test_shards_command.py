"""`tollgate shards` without a stack, and what its list says of a ring with a past."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tollgate.cli import shards
from tollgate.cli.shards import NOT_RUNNING, app
from tollgate.local import lock, ring_changes
from tollgate.local.paths import StackPaths
from tollgate.local.ports import PortPlan
from tollgate.local.stack import new_ring
from tollgate.ring_file import write_ring_file


@pytest.mark.parametrize("command", [["add"], ["remove", "1"], ["list"]])
def test_without_a_stack_each_says_so_and_makes_nothing(tmp_path: Path, command: list[str]) -> None:
    ran = CliRunner().invoke(app, [*command, "--data-dir", str(tmp_path)])
    assert ran.exit_code == NOT_RUNNING
    assert "No stack runs in" in ran.stderr
    assert "tollgate up" in ran.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["remove"], ["remove", "two"], ["remove", "-1"], ["dance"]])
def test_what_is_no_command_is_a_usage_error(tmp_path: Path, command: list[str]) -> None:
    assert CliRunner().invoke(app, [*command, "--data-dir", str(tmp_path)]).exit_code == 2


def test_the_list_names_every_shard_there_ever_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "is_held", lambda _path: True)
    ring = ring_changes.joined(ring_changes.joining(new_ring(PortPlan(), 2), "a:1", "a:2"), 1)
    ring = ring_changes.ended(ring_changes.retired(ring_changes.leaving(ring, 0, 2)))
    ring = ring_changes.leaving(ring_changes.joining(ring, "b:1", "b:2"), 1, 3)
    write_ring_file(StackPaths(tmp_path).ring, ring)
    rows = shards.rows_of(StackPaths(tmp_path), ring)
    assert [(row["shard"], row["state"], row["address"]) for row in rows] == [
        (0, "removed", "127.0.0.1:7100"),
        (1, "leaving", "127.0.0.1:7101"),
        (2, "on the ring", "a:1"),
        (3, "joining", "b:1"),
    ]
    ran = CliRunner().invoke(app, ["list", "--data-dir", str(tmp_path)])
    assert ran.exit_code == 0
    assert [line.split()[0] for line in ran.stdout.splitlines()[2:]] == ["0", "1", "2", "3"]
