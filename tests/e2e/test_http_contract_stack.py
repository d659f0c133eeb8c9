"""The HTTP interface of DESIGN §5 as a client meets it: through nginx, and at a shard beside it.

What admission refuses is held by tests/unit/gateway; here stands what only the servers in between can break.
"""

from __future__ import annotations

import json
import secrets
import socket
from http.client import HTTPConnection, parse_headers
from io import BytesIO
from select import select
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.fixtures.stack import Answer, RunningStack, new_checkout_id
from tests.fixtures.waiting import wait_until
from tollgate.ring_file import read_ring_file

pytestmark = [pytest.mark.stack, pytest.mark.timeout(200)]  # the first one starts the stack

BODY: dict[str, Any] = {"amount": 1234, "currency": "EUR", "payment_method": "pm_ok"}
RAW = json.dumps(BODY).encode()
ID_HEADER = "X-PAYMENT-CHECKOUT-ID"
BODY_BYTES_MAX = 64 * 1024
WAYS = ("nginx", "shard")


def where(stack: RunningStack, way: str, checkout_id: str) -> tuple[str, int]:
    """The address of nginx, or of the shard that owns `checkout_id`."""
    owner = read_ring_file(stack.paths.ring).owner(checkout_id).name
    host, _, port = (urlsplit(stack.json.base_url).netloc if way == "nginx" else owner).rpartition(":")
    return host, int(port)


def send(stack: RunningStack, way: str, checkout_id: str, raw: bytes) -> list[Answer]:
    """`raw` as it stands, then every answer until the connection is closed by the other side."""
    with socket.create_connection(where(stack, way, checkout_id), timeout=15) as connection:
        connection.sendall(raw)
        stream = BytesIO(b"".join(iter(lambda: connection.recv(65536), b"")))
    answers = []
    while line := stream.readline():
        headers = {name.lower(): value for name, value in parse_headers(stream).items()}
        answers.append(Answer(int(line.split()[1]), headers, stream.read(int(headers["content-length"]))))
    return answers


def post(
    stack: RunningStack, checkout_id: str, *extra: str, version: str = "1.1", close: bool = True
) -> bytes:
    """The head of a POST, up to where the length of its body is told."""
    lines = [
        f"POST /v1/payments HTTP/{version}",
        "Host: stack",
        f"Authorization: Bearer {stack.json.api_key}",
        "Content-Type: application/json",
        f"{ID_HEADER}: {checkout_id}",
        *(["Connection: close"] if close else []),
        *extra,
    ]
    return "\r\n".join(lines).encode() + b"\r\n"


def sized(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


def chunked(body: bytes, chunk_bytes: int = 4096) -> bytes:
    pieces = [body[at : at + chunk_bytes] for at in range(0, len(body), chunk_bytes)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


def ask(
    stack: RunningStack,
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    *,
    with_key: bool = True,
) -> Answer:
    """Through nginx, with nothing sent that is not named here."""
    key = {"Authorization": f"Bearer {stack.json.api_key}"} if with_key else {}
    connection = HTTPConnection(urlsplit(stack.json.base_url).netloc, timeout=15)
    try:
        connection.request(method, path, headers={**key, **(headers or {})})
        answer = connection.getresponse()
        named = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, named, answer.read())
    finally:
        connection.close()


def assert_problem(answer: Answer, status: int, code: str) -> None:
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert set(answer.json) == {"type", "title", "status", "detail", "code", "errors"}
    assert (answer.json["status"], answer.json["code"]) == (status, code)


def paid(stack: RunningStack, **fields: object) -> tuple[str, Answer]:
    """A payment that came to its end."""
    checkout_id = new_checkout_id()
    assert stack.pay(checkout_id, **fields).status == 202
    wait_until(lambda: stack.status_of(checkout_id) == "succeeded", "succeeded")
    return checkout_id, ask(stack, "GET", f"/v1/payments/{checkout_id}")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("framed", [sized, chunked])
def test_a_body_has_64_kib_however_it_is_framed(stack: RunningStack, way: str, framed: Any) -> None:
    checkout_id = new_checkout_id()
    [taken] = send(stack, way, checkout_id, post(stack, checkout_id) + framed(RAW.ljust(BODY_BYTES_MAX)))
    assert taken.status == 202, taken
    other = new_checkout_id()
    [refused] = send(stack, way, other, post(stack, other) + framed(RAW.ljust(BODY_BYTES_MAX + 1)))
    assert_problem(refused, 413, "payload_too_large")
    assert stack.request("GET", f"/v1/payments/{other}").status == 404


@pytest.mark.parametrize("way", WAYS)
def test_pipelined_requests_are_answered_in_their_order(stack: RunningStack, way: str) -> None:
    checkout_id = new_checkout_id()
    first = post(stack, checkout_id, close=False) + sized(RAW)
    other = post(stack, checkout_id) + sized(RAW.replace(b"1234", b"1235"))
    answers = send(stack, way, checkout_id, first + first + other)
    assert [answer.status for answer in answers] == [202, 200, 422]
    assert "idempotent-replayed" not in answers[0].headers
    assert answers[1].headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize("way", WAYS)
def test_http_1_0_and_a_client_that_asks_before_it_sends_are_served(stack: RunningStack, way: str) -> None:
    checkout_id = new_checkout_id()
    [old] = send(stack, way, checkout_id, post(stack, checkout_id, version="1.0") + sized(RAW))
    assert old.status == 202
    other = new_checkout_id()
    expecting = post(stack, other, "Expect: 100-continue")
    with socket.create_connection(where(stack, way, other), timeout=15) as connection:
        connection.sendall(expecting + sized(RAW).removesuffix(RAW))
        assert connection.recv(1024) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(RAW)
        assert connection.recv(65536).startswith(b"HTTP/1.1 202 ")


@pytest.mark.parametrize("way", WAYS)
def test_the_names_of_headers_and_schemes_have_no_case(stack: RunningStack, way: str) -> None:
    for change in (bytes.lower, bytes.upper):
        checkout_id = new_checkout_id()
        head = post(stack, checkout_id)
        for name in (
            b"Host",
            b"Authorization: Bearer",
            b"Content-Type: application/json",
            ID_HEADER.encode(),
        ):
            head = head.replace(name, change(name))
        assert send(stack, way, checkout_id, head + sized(RAW))[0].status == 202


@pytest.mark.parametrize("way", WAYS)
def test_an_id_comes_once(stack: RunningStack, way: str) -> None:
    checkout_id = new_checkout_id()
    for second in (checkout_id, new_checkout_id()):
        [answer] = send(
            stack, way, checkout_id, post(stack, checkout_id, f"{ID_HEADER}: {second}") + sized(RAW)
        )
        assert_problem(answer, 400, "invalid_request")
    assert stack.request("GET", f"/v1/payments/{checkout_id}").status == 404


@pytest.mark.parametrize("length", [8, 64])
def test_an_id_has_8_to_64_characters(stack: RunningStack, length: int) -> None:
    checkout_id = secrets.token_hex(32)[:length]
    assert stack.pay(checkout_id).headers["location"] == f"/v1/payments/{checkout_id}"
    assert stack.request("GET", f"/v1/payments/{checkout_id}").status == 200


@pytest.mark.parametrize(
    "checkout_id",
    ["short_7", "a" * 65, "with.dot", "with space", "with%20pct", "4242-4242-4242-4242", "4242424242424242"],
)
def test_another_id_is_refused_and_not_repeated(stack: RunningStack, checkout_id: str) -> None:
    answer = stack.pay(checkout_id)
    assert_problem(answer, 400, "invalid_request")
    assert [error["field"] for error in answer.json["errors"]] == [ID_HEADER]
    assert checkout_id.encode() not in answer.body


def test_one_payment_has_one_address(stack: RunningStack) -> None:
    checkout_id, _ = paid(stack)
    encoded = "".join(f"%{ord(letter):02x}" for letter in checkout_id)
    assert ask(stack, "GET", f"/v1/payments/{encoded}").status == 200
    path = f"/v1/payments/{checkout_id}"
    aliases = [f"{path}/", f"/{path}", f"/v1/payments//{checkout_id}", f"/v1/./payments/{checkout_id}"]
    for alias in [*aliases, f"{path}%0a", f"{path}%2f", f"/v1/payments/../payments/{checkout_id}"]:
        assert_problem(ask(stack, "GET", alias), 404, "not_found")
    for path_id in ("a" * 7, "a" * 8, "a" * 64, "a" * 65, "%ff%fe%fdaaaaa"):
        assert_problem(ask(stack, "GET", f"/v1/payments/{path_id}"), 404, "not_found")


def test_the_header_may_repeat_the_id_of_the_path_and_nothing_else(stack: RunningStack) -> None:
    checkout_id, _ = paid(stack)
    path = f"/v1/payments/{checkout_id}"
    assert ask(stack, "GET", path, {ID_HEADER: checkout_id}).status == 200
    for other in (new_checkout_id(), checkout_id.upper()):
        assert_problem(ask(stack, "GET", path, {ID_HEADER: other}), 400, "invalid_request")


def test_head_is_get_without_its_body(stack: RunningStack) -> None:
    checkout_id, _ = paid(stack)
    for path, status in (
        (f"/v1/payments/{checkout_id}", 200),
        (f"/v1/payments/{new_checkout_id()}", 404),
        ("/nothing", 404),
    ):
        head, got = ask(stack, "HEAD", path), ask(stack, "GET", path)
        assert (head.status, head.body) == (status, b"")
        assert head.headers.get("etag") == got.headers.get("etag")
        assert head.headers.get("content-length") in (None, got.headers["content-length"])


@pytest.mark.parametrize("method", ["PUT", "DELETE", "TRACE"])
@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/payments", "GET, HEAD, POST"),
        ("/v1/payments/order-0001", "GET, HEAD, OPTIONS, PATCH"),
        ("/v1/payments/order-0001/refunds", "POST"),
        ("/v1/payments/order-0001/operations/op_1", "GET, HEAD"),
        ("/v1/customers", "GET, HEAD, POST"),
        ("/livez", "GET, HEAD"),
    ],
)
def test_a_method_that_is_not_there_is_told_which_are(
    stack: RunningStack, method: str, path: str, allowed: str
) -> None:
    answer = ask(stack, method, path)
    assert_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allowed


def test_a_browser_reads_with_the_client_secret_and_sees_less(stack: RunningStack) -> None:
    checkout_id, read = paid(stack, customer_id="c-1", metadata={"k": "v"}, description="shoes")
    secret = read.json["client_secret"]
    path = f"/v1/payments/{checkout_id}?client_secret="
    seen = ask(stack, "GET", path + secret, {"Origin": "https://shop.example"}, with_key=False)
    assert seen.headers["access-control-allow-origin"] == "*"
    assert set(read.json) - set(seen.json) == {"metadata", "customer_id"}
    assert seen.json.items() <= read.json.items()
    unchanged = ask(stack, "GET", path + secret, {"If-None-Match": seen.headers["etag"]}, with_key=False)
    assert (unchanged.status, unchanged.headers["access-control-allow-origin"]) == (304, "*")
    other, _ = paid(stack)
    for wrong in (path + secret[:-1], path, f"/v1/payments/{other}?client_secret={secret}"):
        refused = ask(stack, "GET", wrong, with_key=False)
        assert_problem(refused, 401, "unauthorized")
        assert refused.headers["www-authenticate"] == "Bearer"
        assert refused.headers["access-control-allow-origin"] == "*"


def test_a_browser_may_ask_about_one_payment_and_nothing_else(stack: RunningStack) -> None:
    preflight = {"Origin": "https://shop.example", "Access-Control-Request-Method": "GET"}
    allowed = ask(stack, "OPTIONS", "/v1/payments/order-0001", preflight, with_key=False)
    assert (allowed.status, allowed.headers["access-control-allow-origin"]) == (204, "*")
    refused = ask(stack, "OPTIONS", "/v1/payments", preflight, with_key=False)
    assert refused.status == 405
    created = stack.request(
        "POST", "/v1/payments", BODY, {ID_HEADER: new_checkout_id(), "Origin": "https://shop.example"}
    )
    assert created.status == 202
    for answer in (refused, created):
        assert "access-control-allow-origin" not in answer.headers


def test_nginxs_own_answer_about_a_payment_can_be_read_by_a_browser(stack: RunningStack) -> None:
    path = f"/v1/payments/{new_checkout_id()}"
    differing = ask(stack, "GET", path, {ID_HEADER: new_checkout_id()})
    too_many = ask(stack, "GET", path, {f"X-{n}": "a" for n in range(100)})
    for answer, status, code in ((differing, 400, "invalid_request"), (too_many, 431, "headers_too_large")):
        assert_problem(answer, status, code)
        assert answer.headers["access-control-allow-origin"] == "*"


def test_as_many_headers_as_nginx_takes_a_shard_takes_too(stack: RunningStack) -> None:
    """More than a shard on Granian takes would be refused by it with an empty 431."""
    path = f"/v1/payments/{new_checkout_id()}"
    answers = [ask(stack, "GET", path, {f"X-{n}": "a" for n in range(count)}) for count in range(80, 101)]
    assert {answer.status for answer in answers} == {404, 431}
    for answer in answers:
        assert_problem(answer, answer.status, "not_found" if answer.status == 404 else "headers_too_large")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", 400),
        (b"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 400),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\nConnection: close\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    ],
)
def test_what_is_hardly_http_gets_a_problem_too(stack: RunningStack, raw: bytes, status: int) -> None:
    [answer] = send(stack, "nginx", "order-0001", raw)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["status"] == status


def test_a_body_that_breaks_off_is_no_payment(stack: RunningStack) -> None:
    """Although what arrived is a whole JSON document."""
    for framed in (b"Content-Length: 200\r\n\r\n" + RAW, chunked(RAW).removesuffix(b"0\r\n\r\n")):
        checkout_id = new_checkout_id()
        with socket.create_connection(where(stack, "nginx", checkout_id), timeout=15) as connection:
            connection.sendall(post(stack, checkout_id) + framed)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(65536) == b""
        assert stack.request("GET", f"/v1/payments/{checkout_id}").status == 404


def test_a_header_that_never_ends_is_not_kept(stack: RunningStack) -> None:
    """nginx has a bound of its own; a shard is asked directly here, and after the body as well."""
    checkout_id = new_checkout_id()
    trailing = post(stack, checkout_id) + chunked(RAW).removesuffix(b"\r\n") + b"X: "
    for started in (b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"GET / HTTP/1.1\r\nHost: a\r\nX", trailing):
        with socket.create_connection(where(stack, "shard", checkout_id), timeout=15) as connection:
            connection.sendall(started)
            for _ in range(64):  # each piece is waited for: an answer may be lost to what is sent after it
                if select([connection], [], [], 0.05)[0]:
                    break
                connection.sendall(b"a" * 16_384)
            assert connection.recv(65536).startswith(b"HTTP/1.1 431 ")
    assert stack.request("GET", f"/v1/payments/{checkout_id}").status == 404


@pytest.mark.parametrize("way", WAYS)
def test_a_trailer_is_no_header(stack: RunningStack, way: str) -> None:
    checkout_id = new_checkout_id()
    head = post(stack, checkout_id).replace(f"{ID_HEADER}: {checkout_id}\r\n".encode(), b"")
    trailer = f"{ID_HEADER}: {checkout_id}\r\n\r\n".encode()
    [answer] = send(stack, way, checkout_id, head + chunked(RAW).removesuffix(b"\r\n") + trailer)
    assert_problem(answer, 400, "missing_checkout_id")


@pytest.mark.parametrize("way", WAYS)
def test_white_space_around_a_header_is_no_part_of_it(stack: RunningStack, way: str) -> None:
    checkout_id = new_checkout_id()
    head = post(stack, checkout_id).replace(checkout_id.encode(), f" \t{checkout_id} \t".encode())
    assert send(stack, way, checkout_id, head + sized(RAW))[0].status == 202
