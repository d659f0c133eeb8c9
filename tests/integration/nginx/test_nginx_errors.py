"""What nginx says by itself: problem+json for every error; bounds on what it reads; a quiet log."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path

import pytest

from tests.fixtures.front import Front
from tests.fixtures.nginx import PretendedShards, running_nginx
from tollgate.nginx_config import Tls

KEY = "checkout_0001"


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("errors")
    with PretendedShards(2) as shards, running_nginx(folder, shards.ring) as settings:
        yield Front(shards, settings.listen, folder / "nginx.log")


def test_a_body_of_64_kib_passes_and_one_byte_more_is_413(front: Front) -> None:
    headers = {"X-PAYMENT-CHECKOUT-ID": KEY}
    assert front.ask("POST", "/v1/payments", b"x" * 65536, headers).status == 200
    answer = front.ask("POST", "/v1/payments", b"x" * 65537, headers)
    assert (answer.status, answer.problem["code"]) == (413, "payload_too_large")


def test_a_chunked_body_is_bounded_too(front: Front) -> None:
    chunks = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    head = b"POST /v1/payments HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert front.send(head + chunks * 3 + b"0\r\n\r\n").problem["code"] == "payload_too_large"


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"NONSENSE\r\n\r\n", 400, "invalid_request"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "invalid_request"),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400, "invalid_request"),
        (b"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400, "invalid_request"),
        (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405, "method_not_allowed"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400, "invalid_request"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, "uri_too_long"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 9000 + b"\r\n", 431, "headers_too_large"),
        (
            b"TRACE / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\ntoo long\r\n0\r\n\r\n",
            400,
            "invalid_request",
        ),
        (b"GET / HTTP/7.0\r\nHost: a\r\n\r\n", 400, "invalid_request"),
    ],
)
def test_what_is_not_proper_http_gets_a_problem(front: Front, raw: bytes, status: int, code: str) -> None:
    answer = front.send(raw)
    assert (answer.status, answer.problem["code"]) == (status, code)


def test_an_id_in_the_path_and_another_in_the_header_is_400(front: Front) -> None:
    before = len(front.shards.requests)
    for header in ("checkout_0002", f"{KEY}, {KEY}", f"|{KEY}", "x"):
        answer = front.ask("GET", f"/v1/payments/{KEY}", headers={"X-PAYMENT-CHECKOUT-ID": header})
        assert (answer.status, answer.problem["code"]) == (400, "invalid_request")
        assert answer.problem["errors"][0]["field"] == "X-PAYMENT-CHECKOUT-ID"
    assert len(front.shards.requests) == before, "no shard was asked"


def test_nginx_answers_its_own_health_and_hides_metrics(front: Front) -> None:
    for path in ("/livez", "/readyz"):
        answer = front.ask("GET", path)
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        assert json.loads(answer.body)["status"]
        refused = front.ask("POST", path, b"{}")
        assert (refused.problem["code"], refused.headers["allow"]) == ("method_not_allowed", "GET, HEAD")
    assert front.ask("GET", "/metrics").problem["code"] == "not_found"
    assert front.ask("GET", "/_problem").problem["code"] == "not_found"


def test_no_version_is_told(front: Front) -> None:
    assert front.ask("GET", "/livez").headers["server"] == "nginx"


def test_no_query_string_is_ever_logged(tmp_path: Path) -> None:
    with PretendedShards(1) as shards, running_nginx(tmp_path, shards.ring) as settings:
        front = Front(shards, settings.listen, tmp_path / "nginx.log")
        shards.stop(shards.ring.shards[0].name)
        assert front.ask("GET", f"/v1/payments/{KEY}?client_secret=hush").status == 503
        assert front.ask("GET", "/" + "a" * 9000 + "?client_secret=hush").status == 414
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"hush" not in written


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command for a certificate")
def test_tls_and_http2_by_a_setting(tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    made = (
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    )
    subprocess.run(
        (*made, "-addext", "subjectAltName=IP:127.0.0.1", "-out", str(certificate), "-keyout", str(key)),
        check=True,
        capture_output=True,
    )
    trusting = ssl.create_default_context(cafile=certificate)
    trusting.set_alpn_protocols(["h2", "http/1.1"])
    with (
        PretendedShards(1) as shards,
        running_nginx(tmp_path, shards.ring, tls=Tls(certificate, key)) as settings,
    ):
        host, _, port = settings.listen.rpartition(":")
        with (
            socket.create_connection((host, int(port)), timeout=10) as plain,
            trusting.wrap_socket(plain, server_hostname=host) as secured,
        ):
            assert secured.selected_alpn_protocol() == "h2"
        https = HTTPSConnection(
            settings.listen, timeout=10, context=ssl.create_default_context(cafile=certificate)
        )
        https.request("GET", f"/v1/payments/{KEY}")
        assert https.getresponse().read().decode() == shards.ring.shards[0].name
        https.close()
        not_secured = HTTPConnection(settings.listen, timeout=10)
        not_secured.request("GET", "/livez")
        assert not_secured.getresponse().status == 400
        not_secured.close()
