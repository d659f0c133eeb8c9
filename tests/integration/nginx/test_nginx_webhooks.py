"""Where a webhook came from is what nginx saw, never what its sender wrote."""

from __future__ import annotations

from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.fixtures.nginx import PretendedShards, running_nginx

FORGED = {"X-Real-IP": "192.0.2.7", "X-Forwarded-For": "192.0.2.7"}


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PretendedShards, HTTPConnection]]:
    folder: Path = tmp_path_factory.mktemp("webhooks")
    with PretendedShards(2) as shards, running_nginx(folder, shards.ring) as settings:
        connection = HTTPConnection(settings.listen, timeout=10)
        yield shards, connection
        connection.close()


def addresses_told(
    front: tuple[PretendedShards, HTTPConnection], path: str, headers: dict[str, str]
) -> list[str]:
    shards, connection = front
    connection.request("POST", path, b"{}", headers)
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200
    lines = shards.requests[-1].decode("latin-1").lower().split("\r\n")
    return [line for line in lines if line.startswith(("x-real-ip", "x-forwarded-for"))]


def test_a_shard_is_told_the_address_that_nginx_sees(
    front: tuple[PretendedShards, HTTPConnection],
) -> None:
    for headers in ({}, FORGED):
        assert addresses_told(front, "/v1/webhooks/simulator", headers) == ["x-real-ip: 127.0.0.1"]


def test_anywhere_else_it_is_told_no_address(front: tuple[PretendedShards, HTTPConnection]) -> None:
    for path in ("/v1/payments", "/v1/payments/webhooks-0001/refunds", "/x/v1/webhooks/simulator"):
        assert addresses_told(front, path, FORGED) == []
