"""A dead shard's ids go to the next points of the ring, in ring_hash's order; nothing sent is sent again."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.fixtures.front import Answer, Front
from tests.fixtures.nginx import PretendedShards, running_nginx
from tollgate.ring_hash import HOLDERS

KEYS = [f"checkout_{n:04d}" for n in range(120)]


@contextmanager
def front_of(folder: Path, count: int) -> Iterator[Front]:
    with PretendedShards(count) as shards, running_nginx(folder, shards.ring) as settings:
        yield Front(shards, settings.listen, folder / "nginx.log")


def post(front: Front, key: str, path: str = "/v1/payments", body: bytes = b"{}") -> Answer:
    return front.ask("POST", path, body, {"X-PAYMENT-CHECKOUT-ID": key})


def assert_answered_by(front: Front, key: str, name: str) -> None:
    for answer in (post(front, key), front.ask("GET", f"/v1/payments/{key}")):
        assert (answer.status, answer.body) == (200, name.encode())


def test_a_dead_shards_ids_go_to_the_next_points_of_the_ring_and_come_back_with_it(tmp_path: Path) -> None:
    with front_of(tmp_path, 5) as front:
        ring = front.shards.ring.ring()
        dead: list[str] = []
        for name in ring.names[1:4]:
            front.shards.stop(name)
            dead.append(name)
            for key in KEYS:
                alive = [other for other in ring.preference(key, HOLDERS) if other not in dead]
                if alive:
                    assert_answered_by(front, key, alive[0])
                else:
                    answer = post(front, key)
                    assert (answer.status, answer.problem["code"]) == (503, "owner_unavailable")
                    assert answer.headers["retry-after"] == "1"
        assert any(set(ring.preference(key, HOLDERS)) == set(dead) for key in KEYS)
        for name in dead:
            front.shards.start(name)
        for key in KEYS:
            assert_answered_by(front, key, ring.owner(key))


def test_with_two_shards_the_other_answers(tmp_path: Path) -> None:
    with front_of(tmp_path, 2) as front:
        dead, alive = front.shards.ring.ring().names
        front.shards.stop(dead)
        for key in KEYS:
            assert_answered_by(front, key, alive)
        assert front.ask("POST", "/v1/webhooks/simulator", b"{}").body == alive.encode()


def test_a_post_once_sent_is_never_sent_again_and_a_read_is_at_most_to_the_next_two(tmp_path: Path) -> None:
    with front_of(tmp_path, 5) as front:
        for method, asked in (("POST", 1), ("PATCH", 1), ("GET", HOLDERS)):
            front.shards.requests.clear()
            answer = front.ask(method, "/v1/dies", headers={"X-PAYMENT-CHECKOUT-ID": KEYS[0]})
            assert (answer.status, answer.problem["code"]) == (503, "owner_unavailable")
            assert len(front.shards.requests) == asked


def test_a_post_on_a_kept_connection_that_dies_under_it_is_not_sent_again(tmp_path: Path) -> None:
    """nginx can't know whether the shard read it: the connection was idle and was closed as it was used."""
    with front_of(tmp_path, 3) as front:
        client = HTTPConnection(front.listen, timeout=10)
        for path, status in (("/v1/payments", 200), ("/v1/dies", 503), ("/v1/payments", 200)):
            client.request("POST", path, b"{}", {"X-PAYMENT-CHECKOUT-ID": KEYS[0]})
            answer = client.getresponse()
            answer.read()
            assert answer.status == status
        client.close()
        assert front.shards.connections == 2, "the one that died was a kept one"
        assert [request.split()[1] for request in front.shards.requests].count(b"/v1/dies") == 1


@pytest.mark.parametrize("reads", [1, 1000])
def test_a_post_that_was_sent_in_part_is_not_sent_again(tmp_path: Path, reads: int) -> None:
    with front_of(tmp_path, 3) as front:
        owner, following, _ = front.shards.ring.ring().preference(KEYS[0], 3)
        front.shards.stop(owner)
        with socket.create_server(_host_port(owner)) as reset:
            reset.settimeout(10)
            client = _begin_post(front, KEYS[0], b"x" * 65536)
            accepted, _ = reset.accept()
            accepted.recv(reads)
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            accepted.close()  # with a reset
            assert client.getresponse().status == 503
            client.close()
        assert front.shards.requests == []
        assert post(front, KEYS[0]).body == following.encode(), "now it refuses connections: the next point"


def test_a_shard_that_hangs_is_slow_and_not_dead(tmp_path: Path) -> None:
    """As one that was stopped by a signal: the kernel takes its connections, nobody answers."""
    with front_of(tmp_path, 3) as front:
        owner = front.shards.ring.owner(KEYS[0]).name
        front.shards.stop(owner)
        with socket.create_server(_host_port(owner)) as hanging:
            hanging.settimeout(10)
            clients = [_begin_post(front, KEYS[0], b"{}") for _ in range(3)]
            accepted = [hanging.accept()[0] for _ in clients]
            assert all(connection.recv(64).startswith(b"POST /v1/payments") for connection in accepted)
            assert front.shards.requests == []
            for connection, client in zip(accepted, clients, strict=True):
                connection.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
                client.close()
                connection.close()


def _begin_post(front: Front, key: str, body: bytes) -> HTTPConnection:
    client = HTTPConnection(front.listen, timeout=10)
    client.request("POST", "/v1/payments", body, {"X-PAYMENT-CHECKOUT-ID": key})
    return client


def _host_port(name: str) -> tuple[str, int]:
    host, _, port = name.rpartition(":")
    return host, int(port)
