"""tollgate.ring_hash against a running nginx: who owns a key must be one answer."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.fixtures.nginx import PretendedShards, running_nginx

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
_KEYS = 3000


@dataclass(frozen=True)
class Front:
    shards: PretendedShards
    connection: HTTPConnection

    def answered_by(self, method: str, path: str, headers: dict[str, str] | None = None) -> str:
        self.connection.request(method, path, headers=headers or {})
        answer = self.connection.getresponse()
        body = answer.read().decode()
        assert answer.status == 200, body
        return body


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with (
        PretendedShards(5) as shards,
        running_nginx(tmp_path_factory.mktemp("ring"), shards.ring) as settings,
    ):
        connection = HTTPConnection(settings.listen, timeout=10)
        yield Front(shards, connection)
        connection.close()


def keys(count: int) -> list[str]:
    rng = random.Random(20261121)
    return ["".join(rng.choices(_ALPHABET, k=rng.randint(8, 64))) for _ in range(count)]


def test_nginx_and_ring_hash_name_the_same_owner_for_every_key(front: Front) -> None:
    ring = front.shards.ring.ring()
    owners = {key: ring.owner(key) for key in keys(_KEYS)}
    assert set(owners.values()) == set(ring.names), "each shard owns some of the keys"
    for key, owner in owners.items():
        assert front.answered_by("POST", "/v1/payments", {"X-Payment-Checkout-Id": key}) == owner


def test_white_space_around_the_id_does_not_give_it_another_owner(front: Front) -> None:
    for key in keys(40):
        owner = front.shards.ring.owner(key).name
        for padded in (f"\t{key}", f"{key}\t", f" \t {key} \t "):
            assert front.answered_by("POST", "/v1/payments", {"X-Payment-Checkout-Id": padded}) == owner


def test_the_path_and_the_header_lead_to_the_same_shard(front: Front) -> None:
    for key in keys(200):
        owner = front.shards.ring.owner(key).name
        assert front.answered_by("GET", f"/v1/payments/{key}?client_secret=x") == owner
        assert front.answered_by("POST", f"/v1/payments/{key}/refunds") == owner
        assert front.answered_by("GET", f"/v1/payments/{key}/operations/op_1") == owner
        same = {"X-PAYMENT-CHECKOUT-ID": key}
        assert front.answered_by("GET", f"/v1/payments/{key}", same) == owner


def test_what_has_no_key_reaches_every_shard(front: Front) -> None:
    for path in ("/v1/payments", "/v1/webhooks/simulator", "/v1/customers/cus_1", "/openapi.json", "/docs"):
        seen = {front.answered_by("GET", path) for _ in range(10)}
        assert seen == set(front.shards.ring.ring().names), path


def test_nginx_keeps_its_connections_to_the_shards(tmp_path: Path) -> None:
    with PretendedShards(1) as shards, running_nginx(tmp_path, shards.ring) as settings:
        connection = HTTPConnection(settings.listen, timeout=10)
        for key in keys(20):
            connection.request("GET", f"/v1/payments/{key}")
            connection.getresponse().read()
        connection.close()
        assert len(shards.requests) == 20
        assert all(b"\r\nConnection: close" not in request for request in shards.requests)
        assert shards.connections == 1
