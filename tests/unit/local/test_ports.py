"""The port plan: nobody gets another's port, and a taken one is named."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fixtures.free_port import free_port
from tollgate.errors import ConfigurationError
from tollgate.local.paths import StackPaths
from tollgate.local.ports import HOST, PortPlan, base_of_shard, check_counts, check_free
from tollgate.local.stack import StackSettings, needed_ports, new_ring

BASES = st.integers(1024, 32768 - 130)


@given(base=BASES, shards=st.integers(1, 31), data=st.data())
def test_all_ports_of_a_stack_differ_and_lie_in_its_range(
    base: int, shards: int, data: st.DataObject
) -> None:
    processors = data.draw(st.integers(0, 31 - shards))
    ports = PortPlan(base=base, http=40_000)
    check_counts(shards, processors)
    settings = StackSettings(StackPaths(Path("/nowhere")), ports, processors)
    needed = needed_ports(settings, new_ring(ports, shards))
    assert len(set(needed.values())) == len(needed) == 5 + 3 * shards + 2 * processors
    assert all(base <= port < base + 130 for part, port in needed.items() if part != "nginx")
    assert max(port for part, port in needed.items() if part != "nginx") < 32768


@given(base=BASES, shard=st.integers(0, 63))
def test_the_base_can_be_told_from_a_shards_name(base: int, shard: int) -> None:
    assert base_of_shard(f"{HOST}:{PortPlan(base, 40_000).shard_http(shard)}", shard) == base


def test_the_default_plan_is_the_one_in_the_design() -> None:
    ports = PortPlan()
    assert (ports.http, ports.kafka, ports.postgres, ports.simulator) == (8080, 7070, 7072, 7073)
    assert (ports.shard_http(0), ports.shard_http(63)) == (7100, 7163)
    assert ports.processor_grpc(0) == 7199


def test_more_parts_than_ports_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="together at most 31"):
        check_counts(30, 2)


@pytest.mark.parametrize(
    ("base", "http"), [(80, 8080), (32700, 8080), (7070, 7100), (7070, 0), (7070, 65536)]
)
def test_a_plan_that_can_not_work_is_refused(base: int, http: int) -> None:
    with pytest.raises(ConfigurationError, match="choose one from"):
        PortPlan(base, http)


def test_a_taken_port_is_named_with_who_holds_it() -> None:
    port = free_port()
    with (
        socket.create_server((HOST, port)),
        pytest.raises(ConfigurationError, match=rf"Port {port}, which nginx needs, .*pid {os.getpid()}\)"),
    ):
        check_free({"nginx": port})
    check_free({"nginx": port})


def test_a_port_taken_on_all_addresses_counts() -> None:
    port = free_port()
    with socket.create_server(("0.0.0.0", port)), pytest.raises(ConfigurationError, match=f"Port {port}"):  # noqa: S104
        check_free({"nginx": port})
