"""A payment's whole way through the real stack, and what clients are told on it."""

from __future__ import annotations

import json
import socket
from ipaddress import ip_address

import pytest

from tests.fixtures.stack import Answer, RunningStack, new_checkout_id
from tests.fixtures.waiting import wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(200)]  # the first one starts the stack


def assert_problem(answer: Answer, status: int, code: str) -> None:
    assert answer.status == status, answer
    assert answer.headers["content-type"].startswith("application/problem+json")
    problem = answer.json
    assert {"type", "title", "status", "detail", "code"} <= set(problem)
    assert (problem["status"], problem["code"]) == (status, code)


def test_a_payment_goes_from_202_to_succeeded_with_one_effect(stack: RunningStack) -> None:
    checkout_id = new_checkout_id()
    accepted = stack.pay(checkout_id)
    assert accepted.status == 202, accepted
    assert accepted.headers["location"] == f"/v1/payments/{checkout_id}"
    assert accepted.headers["retry-after"] == "2"
    assert accepted.json["status"] == "pending"
    wait_until(lambda: stack.status_of(checkout_id) == "succeeded", "succeeded")
    (effect,) = stack.effects(checkout_id)
    assert (effect["type"], effect["amount"], effect["currency"]) == ("charge", 1234, "EUR")


def test_the_same_id_again_is_a_replay_and_another_content_is_422(stack: RunningStack) -> None:
    checkout_id = new_checkout_id()
    assert stack.pay(checkout_id).status == 202
    replay = stack.pay(checkout_id)
    assert (replay.status, replay.headers["idempotent-replayed"]) == (200, "true")
    assert_problem(stack.pay(checkout_id, amount=1), 422, "idempotency_key_reused")
    wait_until(lambda: stack.status_of(checkout_id) == "succeeded", "succeeded")
    assert stack.pay(checkout_id).json["status"] == "succeeded"
    assert len(stack.effects(checkout_id)) == 1


def test_a_declined_payment_fails_without_effect(stack: RunningStack) -> None:
    checkout_id = new_checkout_id()
    stack.pay(checkout_id, payment_method="pm_declined")
    wait_until(lambda: stack.status_of(checkout_id) == "failed", "failed")
    failed = stack.request("GET", f"/v1/payments/{checkout_id}")
    assert failed.json["failure"]["code"] == "insufficient_funds"
    assert stack.effects(checkout_id) == []


def test_a_status_is_polled_by_its_etag(stack: RunningStack) -> None:
    checkout_id = new_checkout_id()
    stack.pay(checkout_id)
    wait_until(lambda: stack.status_of(checkout_id) == "succeeded", "succeeded")
    path = f"/v1/payments/{checkout_id}"
    seen = stack.request("GET", path)
    assert (seen.headers["cache-control"], "retry-after" in seen.headers) == ("no-store", False)
    again = stack.request("GET", path, headers={"If-None-Match": seen.headers["etag"]})
    assert (again.status, again.body) == (304, b"")


def test_errors_come_through_nginx_as_problems(stack: RunningStack) -> None:
    checkout_id = new_checkout_id()
    key = {"X-PAYMENT-CHECKOUT-ID": checkout_id}
    assert_problem(stack.request("POST", "/v1/payments", {"amount": 1}), 400, "missing_checkout_id")
    assert_problem(stack.request("POST", "/v1/payments", {"amount": 0}, key), 400, "invalid_request")
    assert_problem(stack.pay(checkout_id, description="4242 4242 4242 4242"), 400, "invalid_request")
    assert_problem(stack.request("POST", "/v1/payments", b"x" * 65537, key), 413, "payload_too_large")
    assert_problem(stack.request("GET", "/nothing/here"), 404, "not_found")
    assert_problem(stack.request("GET", "/metrics"), 404, "not_found")
    assert_problem(stack.request("PUT", "/v1/payments", {}), 405, "method_not_allowed")
    assert_problem(
        stack.request("GET", f"/v1/payments/{checkout_id}", headers={"Authorization": ""}),
        401,
        "unauthorized",
    )


def test_only_stack_json_holds_the_development_key(stack: RunningStack) -> None:
    key = stack.json.api_key.encode()
    data_dir = stack.paths.data_dir
    files = (path for path in data_dir.rglob("*") if path.is_file())
    sparse = (".index", ".timeindex")  # Kafka's: many MB of holes and a few numbers
    holders = [path for path in files if path.suffix not in sparse and key in path.read_bytes()]
    assert holders == [stack.paths.stack_json]
    assert stack.paths.stack_json.stat().st_mode & 0o777 == 0o600


def test_everything_listens_on_loopback_alone(stack: RunningStack) -> None:
    import psutil

    for pid in stack.processes():
        for connection in psutil.Process(pid).net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                where = ip_address(connection.laddr[0].removeprefix("::ffff:"))  # gRPC's sockets are of IPv6
                assert where.is_loopback, psutil.Process(pid).cmdline()
                assert connection.laddr[1] < 32768


def test_status_tells_every_part_and_what_it_weighs(stack: RunningStack) -> None:
    told = stack.tollgate("status", "--json")
    assert told.returncode == 0, told.stderr
    status = json.loads(told.stdout)
    assert status["ready"]
    by_name = {part["name"]: part for part in status["parts"]}
    pids = stack.pids | {"simulator": stack.pids["psp_simulator"]}
    assert {name: part["pid"] for name, part in by_name.items()} == {name: pids[name] for name in by_name}
    assert all(part["memory_bytes"] > 1_000_000 for part in by_name.values())
    assert status["memory_bytes"] > sum(part["memory_bytes"] for part in by_name.values()) - 1
    assert "together" in stack.tollgate("status").stdout


def test_logs_shows_a_parts_log_and_names_those_there_are(stack: RunningStack) -> None:
    assert "kafka" in stack.tollgate("logs", "kafka", "-n", "5").stdout.lower()
    unknown = stack.tollgate("logs", "nobody")
    assert unknown.returncode == 1
    assert "shard-0" in unknown.stderr
    assert "Traceback" not in unknown.stderr
    assert stack.tollgate("logs", "../stack.json").returncode == 1


def test_a_second_up_is_harmless(stack: RunningStack) -> None:
    before = stack.pids
    again = stack.up()
    assert again.returncode == 0, again.stderr
    assert "Already running" in again.stdout
    assert stack.json.base_url in again.stdout
    assert stack.pids == before


def test_each_shard_and_nginx_agree_on_who_owns_an_id(stack: RunningStack) -> None:
    from tollgate.ring_file import read_ring_file

    ring = read_ring_file(stack.paths.ring)
    owners = set()
    for _ in range(8):
        checkout_id = new_checkout_id()
        assert stack.pay(checkout_id).status == 202
        owner = ring.owner(checkout_id)
        owners.add(owner.id)
        host, _, port = owner.name.rpartition(":")
        request = f"GET /v1/payments/{checkout_id} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        with socket.create_connection((host, int(port)), timeout=10) as direct:
            direct.sendall(f"{request}Authorization: Bearer {stack.json.api_key}\r\n\r\n".encode())
            assert direct.recv(65536).startswith(b"HTTP/1.1 200")
    assert owners == {shard.id for shard in ring.shards}
