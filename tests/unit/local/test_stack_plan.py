"""What the stack consists of, and the stack.json that others rely on."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from pydantic import ByteSize, TypeAdapter

from tollgate.errors import CorruptionError
from tollgate.local.launch import DISK_FREE_MIN
from tollgate.local.paths import StackPaths, choose_data_dir
from tollgate.local.ports import PortPlan
from tollgate.local.stack import (
    STOP_ORDER,
    StackSettings,
    build_parts,
    describe,
    new_ring,
    stop_timeout_s,
)
from tollgate.local.stack_json import StackJson, api_key_of, read_stack_json, write_stack_json

KEY = "tg_sk_of_the_test"


def settings(tmp_path: Path, processors: int = 1, **elsewhere: Any) -> StackSettings:
    return StackSettings(StackPaths(tmp_path), PortPlan(), processors, **elsewhere)


def described(tmp_path: Path) -> StackJson:
    stack = settings(tmp_path, processors=2)
    ring = new_ring(stack.ports, 2)
    pids = {part.name: 100 + n for n, part in enumerate(build_parts(stack, ring, KEY))}
    return describe(stack, ring, KEY, pids)


def test_stack_json_has_the_keys_of_the_contract_and_no_other(tmp_path: Path) -> None:
    stack = json.loads(described(tmp_path).model_dump_json())
    assert list(stack) == [
        "base_url",
        "api_key",
        "merchant",
        "kafka_bootstrap",
        "postgres_dsn",
        "psp_simulator_url",
        "shards",
        "cdc",
        "processors",
        "services",
    ]
    assert [set(shard) for shard in stack["shards"]] == [{"id", "pid", "http", "grpc", "data_dir"}] * 2
    assert [set(cdc) for cdc in stack["cdc"]] == [{"shard", "pid"}] * 2
    assert [set(processor) for processor in stack["processors"]] == [{"pid", "grpc"}] * 2
    assert set(stack["services"]) == {"kafka", "postgres", "nginx", "psp_simulator"}
    assert all(set(service) == {"pid"} for service in stack["services"].values())
    assert stack["shards"][1]["http"] == "http://127.0.0.1:7101"
    assert stack["shards"][0]["grpc"].startswith("127.0.0.1:")
    assert stack["base_url"] == "http://127.0.0.1:8080"


def test_services_that_run_elsewhere_are_used_and_not_started(tmp_path: Path) -> None:
    stack = settings(tmp_path, kafka_bootstrap="k:9092", postgres_dsn="postgresql://p/db")
    ring = new_ring(stack.ports, 1)
    parts = {part.name: part for part in build_parts(stack, ring, KEY)}
    assert set(parts) == {"shard-0", "cdc-0", "processor-0", "simulator", "nginx"}
    assert parts["cdc-0"].env["TOLLGATE_KAFKA_BOOTSTRAP"] == "k:9092"
    assert parts["processor-0"].env["TOLLGATE_POSTGRES_DSN"] == "postgresql://p/db"
    described = describe(stack, ring, KEY, dict.fromkeys(parts, 1))
    assert set(described.services) == {"nginx", "psp_simulator"}
    assert (described.kafka_bootstrap, described.postgres_dsn) == ("k:9092", "postgresql://p/db")


def test_a_stack_that_may_start_has_room_for_payments(tmp_path: Path) -> None:
    stack = settings(tmp_path)
    parts = {part.name: part for part in build_parts(stack, new_ring(stack.ports, 1), KEY)}
    kept_free = parts["shard-0"].env["TOLLGATE_SHARD__DISK_FREE_MIN"]
    assert TypeAdapter(ByteSize).validate_python(kept_free) < DISK_FREE_MIN


def test_without_a_processor_the_shards_have_no_ledger(tmp_path: Path) -> None:
    stack = settings(tmp_path, processors=0)
    parts = {part.name: part for part in build_parts(stack, new_ring(stack.ports, 1), KEY)}
    assert parts["shard-0"].env["TOLLGATE_LEDGER__TARGETS"] == ""
    assert not any(name.startswith("processor") for name in parts)


def test_the_client_secret_key_stays_the_same_as_long_as_the_api_key_does(tmp_path: Path) -> None:
    stack = settings(tmp_path)

    def secret(api_key: str) -> str:
        parts = build_parts(stack, new_ring(stack.ports, 1), api_key)
        return next(part for part in parts if part.name == "shard-0").env["TOLLGATE_CLIENT_SECRET_KEY"]

    assert secret(KEY) == secret(KEY) != secret("tg_sk_other")
    assert len(secret(KEY)) >= 32
    assert KEY not in secret(KEY)


def test_every_part_has_one_place_in_the_order_of_stopping_and_all_fits_into_20_s(tmp_path: Path) -> None:
    stack = settings(tmp_path, processors=3)
    parts = build_parts(stack, new_ring(stack.ports, 3), KEY)
    stages = [[part for part in parts if part.name.startswith(prefixes)] for prefixes in STOP_ORDER]
    assert sorted(part.name for stage in stages for part in stage) == sorted(part.name for part in parts)
    assert sum(max(map(stop_timeout_s, stage)) for stage in stages) < 20


def test_stack_json_is_for_its_owner_alone_and_keeps_the_key_when_nothing_runs(tmp_path: Path) -> None:
    path = tmp_path / "stack.json"
    before = os.umask(0)
    try:
        write_stack_json(path, described(tmp_path))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    write_stack_json(path, described(tmp_path).without_processes())
    left = read_stack_json(path)
    assert left is not None
    assert (left.shards, left.cdc, left.processors, left.services) == ((), (), (), {})
    assert api_key_of(path) == KEY
    assert [entry.name for entry in tmp_path.iterdir()] == ["stack.json"]


def test_a_broken_stack_json_is_said_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "stack.json"
    path.write_text('{"api_key": "tg_sk_secret"')
    with pytest.raises(CorruptionError, match="Remove it") as raised:
        api_key_of(path)
    assert "tg_sk_secret" not in str(raised.value)


def test_the_data_folder_is_the_one_given_else_the_environments_else_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOLLGATE_HOME", raising=False)
    assert choose_data_dir(None).data_dir == tmp_path / ".tollgate"
    monkeypatch.setenv("TOLLGATE_HOME", "home")
    assert choose_data_dir(None).data_dir == tmp_path / "home"
    assert choose_data_dir(Path("given")).data_dir == tmp_path / "given"
