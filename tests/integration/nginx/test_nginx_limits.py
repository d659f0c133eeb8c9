"""What nginx refuses by itself: too much at a time, too often, too slowly; and what it answers meanwhile."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.front import Answer, Front
from tests.fixtures.nginx import PretendedShards, running_nginx
from tests.fixtures.waiting import wait_for, wait_until
from tollgate.nginx_config import AddressLimits, AddressRate

KEY = "checkout_0001"
NAMED = {"X-PAYMENT-CHECKOUT-ID": KEY}
HOLD = {**NAMED, "X-Hold": "1"}
PATH = f"/v1/payments/{KEY}"
# Too slow to be seen: what is over the burst stays refused for as long as a test may last.
SELDOM = 1 / 60


@contextmanager
def running_front(folder: Path, **changes: Any) -> Iterator[Front]:
    with PretendedShards(1) as shards, running_nginx(folder, shards.ring, **changes) as settings:
        yield Front(shards, settings.listen, folder / "nginx.log")


@contextmanager
def held(front: Front, count: int, method: str) -> Iterator[list[Future[Answer]]]:
    """That many requests under way until the end of the block."""
    path = "/v1/payments" if method == "POST" else PATH
    before = front.shards.holding
    with ThreadPoolExecutor(count) as pool:
        try:
            asked = [pool.submit(front.ask, method, path, b"", HOLD) for _ in range(count)]
            wait_until(lambda: front.shards.holding == before + count, "the requests are under way")
            yield asked
        finally:
            front.shards.release()


def refused(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.problem["code"]) == (status, code)
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["cache-control"] == "no-store"


def test_beyond_what_is_taken_at_a_time_nginx_refuses_and_nobody_loses_his_place(tmp_path: Path) -> None:
    with running_front(tmp_path, in_flight_per_shard=3) as front:
        with held(front, 3, "POST") as asked:
            before = len(front.shards.requests)
            refused(front.ask("POST", "/v1/payments", b"{}", NAMED), 503, "overloaded")
            assert len(front.shards.requests) == before, "no shard was asked"
            assert front.ask("GET", PATH).status == 200, "who reads is counted apart"
            for path in ("/livez", "/readyz"):
                assert front.ask("GET", path).status == 200
        assert [answer.result().status for answer in asked] == [200] * 3
        assert front.ask("POST", "/v1/payments", b"{}", NAMED).status == 200, "there is room again"


def test_reading_has_its_own_bound_and_browsers_see_the_refusal(tmp_path: Path) -> None:
    with running_front(tmp_path, in_flight_per_shard=2) as front, held(front, 2, "GET"):
        answer = front.ask("GET", PATH)
        refused(answer, 503, "overloaded")
        assert answer.headers["access-control-allow-origin"] == "*"
        changing = front.ask("PATCH", PATH, b"{}", {"X-Twice": "a" * 40_000})
        assert changing.status == 431
        assert "access-control-allow-origin" not in changing.headers, "other origins may only read"
        assert front.ask("POST", "/v1/payments", b"{}", NAMED).status == 200


def test_a_worker_without_a_connection_to_spare_says_so_in_form(tmp_path: Path) -> None:
    with running_front(tmp_path, connections_max=16, keepalive_connections=1) as front, ExitStack() as busy:
        host, _, port = front.listen.rpartition(":")

        def answered_when_crowded() -> Answer | None:
            # Nobody's answer leaves an idle connection to the shard, so each needs a new one.
            answer = front.ask("POST", "/v1/dies", b"{}", NAMED)
            if answer.problem["code"] != "owner_unavailable":
                return answer
            # Half a head: no request yet that could be counted, and once read no connection that could be
            # closed. A busy nginx closes some before it has read them: they come until enough have stayed.
            half = busy.enter_context(socket.create_connection((host, int(port)), timeout=10))
            half.sendall(b"GET /livez HTTP/1.1\r\nHost")
            return None

        refused(wait_for(answered_when_crowded, "no connection is left for a shard"), 503, "overloaded")
        assert front.ask("GET", "/livez").status == 200, "that takes one connection, not two"


@pytest.mark.parametrize("burst", [1, 4])
def test_an_address_may_write_its_burst_and_not_one_more(tmp_path: Path, burst: int) -> None:
    limits = AddressLimits(post=AddressRate(SELDOM, burst))
    with running_front(tmp_path, limits=limits) as front:
        answers = [front.ask("POST", "/v1/payments", b"{}", NAMED) for _ in range(burst + 1)]
        assert [answer.status for answer in answers] == [200] * burst + [429]
        refused(answers[-1], 429, "rate_limited")
        assert front.ask("GET", PATH).status == 200, "who reads is counted apart"


def test_an_address_may_read_its_burst_and_health_is_not_counted(tmp_path: Path) -> None:
    limits = AddressLimits(get=AddressRate(SELDOM, 3))
    with running_front(tmp_path, limits=limits) as front:
        assert [front.ask("GET", "/livez").status for _ in range(9)] == [200] * 9
        answers = [front.ask("GET", PATH) for _ in range(4)]
        assert [answer.status for answer in answers] == [200, 200, 200, 429]
        refused(answers[-1], 429, "rate_limited")
        assert answers[-1].headers["access-control-allow-origin"] == "*"
        assert front.ask("POST", "/v1/payments", b"{}", NAMED).status == 200


def test_a_client_is_an_address_a_trusted_proxy_names_and_no_other(tmp_path: Path) -> None:
    limits = AddressLimits(post=AddressRate(SELDOM, 1), trusted_proxies=("127.0.0.0/8",))
    with running_front(tmp_path, limits=limits) as front:

        def post(forwarded: str) -> int:
            headers = {**NAMED, "X-Forwarded-For": forwarded}
            return front.ask("POST", "/v1/payments", b"{}", headers).status

        assert [post("192.0.2.1"), post("192.0.2.2"), post("192.0.2.1")] == [200, 200, 429]
        assert post("203.0.113.9, 192.0.2.1") == 429, "what the client itself wrote before it counts nothing"
        assert [post("2001:db8:0:1::1"), post("2001:db8:0:1:ffff::2"), post("2001:db8:0:2::1")] == [
            200,
            429,
            200,
        ]


def test_without_a_trusted_proxy_a_client_can_not_name_another_address(tmp_path: Path) -> None:
    with running_front(tmp_path, limits=AddressLimits(post=AddressRate(SELDOM, 1))) as front:
        for number, status in enumerate((200, 429)):
            headers = {**NAMED, "X-Forwarded-For": f"192.0.2.{number}"}
            assert front.ask("POST", "/v1/payments", b"{}", headers).status == status
        assert b"192.0.2" not in front.shards.requests[-1], "nor to the shard"


def test_an_address_has_so_many_requests_under_way_and_no_more(tmp_path: Path) -> None:
    limits = AddressLimits(in_flight_max=2)
    with running_front(tmp_path, limits=limits) as front, held(front, 2, "POST"):
        refused(front.ask("POST", "/v1/payments", b"{}", NAMED), 503, "overloaded")


def test_requests_pipelined_through_nginx_are_answered_in_their_order(tmp_path: Path) -> None:
    with running_front(tmp_path) as front:
        one = b"GET /v1/payments/%s HTTP/1.1\r\nHost: a\r\n%s\r\n"
        names = [f"checkout_{number:04d}".encode() for number in range(50)]
        sent = b"".join(one % (name, b"") for name in names) + one % (KEY.encode(), b"Connection: close\r\n")
        host, _, port = front.listen.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(sent)
            received = b""
            while chunk := connection.recv(65536):
                received += chunk
        assert received.count(b"HTTP/1.1 200 OK") == 51
        paths = [request.split(b" ")[1] for request in front.shards.requests[-51:]]
        assert paths == [b"/v1/payments/" + name for name in [*names, KEY.encode()]]


def test_who_sends_too_slowly_is_cut_off_and_gives_his_place_back(tmp_path: Path) -> None:
    slow = (
        b"",
        b"POST /v1/payments HT",
        b"POST /v1/payments HTTP/1.1\r\nX-Slow: a",
        b"POST /v1/payments HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{",
    )
    with running_front(tmp_path, in_flight_per_shard=1, client_timeout_s=1) as front, ExitStack() as open_:
        host, _, port = front.listen.rpartition(":")
        clients = [open_.enter_context(socket.create_connection((host, int(port)), timeout=10)) for _ in slow]
        for client, sent in zip(clients, slow, strict=True):
            client.sendall(sent)
        for client in clients:
            with suppress(ConnectionResetError):
                assert client.recv(65536) == b"", "nginx does not wait for ever"
        assert front.shards.requests == [], "no shard was asked"
        assert front.ask("POST", "/v1/payments", b"{}", NAMED).status == 200


def test_a_client_that_leaves_half_way_leaves_nothing_behind(tmp_path: Path) -> None:
    with running_front(tmp_path, in_flight_per_shard=2) as front:
        host, _, port = front.listen.rpartition(":")
        for _ in range(6):
            with socket.create_connection((host, int(port)), timeout=10) as connection:
                connection.sendall(b"POST /v1/payments HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{")

        def served() -> bool:
            return front.ask("POST", "/v1/payments", b"{}", NAMED).status == 200

        wait_until(served, "the places of those who left are given back")
