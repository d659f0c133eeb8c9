"""More clients than a shard may open files for: the store keeps its own, health is told, payments go on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import orjson
import psutil
import pytest

from gateway.http.connection_bounds import FILES_FOR_THE_REST
from tests.fixtures.free_port import free_port
from tests.fixtures.shard import API_KEY, BODY, MERCHANT
from tests.fixtures.waiting import wait_until

pytestmark = pytest.mark.fault
OPS_RESERVE = 8
CONNECTIONS = 150
FILES_MAX = FILES_FOR_THE_REST + OPS_RESERVE + CONNECTIONS


def ask(connection: HTTPConnection, method: str, path: str, checkout_id: str | None = None) -> int:
    headers = {"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"}
    if checkout_id is not None:
        headers["X-PAYMENT-CHECKOUT-ID"] = checkout_id
    connection.request(method, path, orjson.dumps(BODY) if method == "POST" else None, headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[tuple[int, psutil.Process]]:
    port = free_port()
    environment = {
        "TOLLGATE_SHARD__ID": "0",
        "TOLLGATE_SHARD__DATA_DIR": str(tmp_path),
        "TOLLGATE_SHARD__HTTP": f"127.0.0.1:{port}",
        "TOLLGATE_SHARD__GRPC": f"127.0.0.1:{free_port()}",
        "TOLLGATE_CLIENT_SECRET_KEY": "0123456789abcdef" * 2,
        "TOLLGATE_DEVELOPMENT__API_KEY": API_KEY,
        "TOLLGATE_DEVELOPMENT__MERCHANT": MERCHANT,
        "TOLLGATE_OVERLOAD__OPS_RESERVE": str(OPS_RESERVE),
    }
    limited = f'ulimit -n {FILES_MAX} && exec "$0" -m gateway'
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            ["sh", "-c", limited, sys.executable], env=os.environ | environment, stderr=log
        )
    try:
        wait_until(lambda: is_live(port), "the shard is live")
        yield port, psutil.Process(process.pid)
        assert process.poll() is None, (tmp_path / "log").read_text()
    finally:
        process.kill()
        process.wait()


def is_live(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        return ask(connection, "GET", "/livez") == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def test_a_flood_of_connections_costs_neither_the_store_nor_the_health(
    shard: tuple[int, psutil.Process],
) -> None:
    port, process = shard
    files_before = process.num_fds()
    with ExitStack() as flood:
        known = HTTPConnection("127.0.0.1", port, timeout=10)
        flood.callback(known.close)
        assert ask(known, "POST", "/v1/payments", "before_the_flood") == 202
        for _ in range(FILES_MAX):
            one = flood.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            with suppress(OSError):  # turned away at once
                one.sendall(b"GET /livez HTTP/1.1\r\nHost")
        files_max = files_before + CONNECTIONS + OPS_RESERVE + 1
        # Not at once: whoever is just being turned away has one too.
        wait_until(lambda: process.num_fds() <= files_max, "the store's files are left alone")
        wait_until(lambda: is_live(port), "health is told in the middle of the flood")
        for number in range(20):
            assert ask(known, "POST", "/v1/payments", f"in_the_flood_{number}") == 202
        assert ask(known, "GET", "/v1/payments/before_the_flood") == 200
    after = HTTPConnection("127.0.0.1", port, timeout=10)

    def served() -> bool:
        try:
            return ask(after, "POST", "/v1/payments", "after_the_flood") in (200, 202)
        except (OSError, HTTPException):
            after.close()
            return False

    wait_until(served, "there is room again")
    after.close()
