"""The Go peer takes and refuses what the shard does: a peer that checks less would be no peer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from benchmarks.systems import builds, catalogue
from gateway.admission import Admitted, admit
from tests.fixtures.free_port import free_port
from tollgate.local import process

GOOD = {"amount": 1999, "currency": "EUR", "payment_method": "pm_ok"}
_PSPS = frozenset({"simulator"})


def _with(**fields: object) -> bytes:
    return json.dumps(GOOD | fields).encode()


BODIES = {
    "minimal": _with(),
    "everything": _with(
        capture="manual",
        psp="simulator",
        customer_id="c",
        description="d",
        return_url="u",
        metadata={"a": "1"},
        payment_checkout_id="checkout-1",
    ),
    "nulls": _with(capture=None, psp=None, metadata=None, description=None),
    "time stamp and UUID": _with(
        metadata={"at": "2022-11-12 01:14:52.714083+00", "id": "1" * 8 + "-1111-1111"}
    ),
    "float": _with(amount=1.0),
    "bool": _with(amount=True),
    "text amount": _with(amount="1"),
    "zero": _with(amount=0),
    "largest": _with(amount=99_999_999_999),
    "too large": _with(amount=100_000_000_000),
    "huge": b'{"amount":1' + b"0" * 40 + b',"currency":"EUR","payment_method":"p"}',
    "lower-case currency": _with(currency="eur"),
    "unknown currency": _with(currency="XXX"),
    "no token": _with(payment_method=""),
    "long token": _with(payment_method="x" * 256),
    "capture": _with(capture="later"),
    "psp": _with(psp="other"),
    "long customer": _with(customer_id="é" * 65),
    "customer at its limit": _with(customer_id="é" * 64),
    "metadata of 21": _with(metadata={str(n): "v" for n in range(21)}),
    "metadata with a number": _with(metadata={"a": 1}),
    "metadata with null": _with(metadata={"a": None}),
    "other id in the body": _with(payment_checkout_id="checkout-2"),
    "unknown field": _with(colour="red"),
    "cvv": _with(cvv="123"),
    "pan in metadata": _with(metadata={"PAN": "x"}),
    "duplicate": b'{"amount":1,"currency":"EUR","payment_method":"p","amount":2}',
    "duplicate in metadata": b'{"amount":1,"currency":"EUR","payment_method":"p","metadata":{"a":"","a":""}}',
    "NUL": _with(description="a\0b"),
    "card": _with(description="paid with 4111111111111111 today"),
    "grouped card": _with(metadata={"note": "4111-1111-1111-1111"}),
    "escaped card": b'{"amount":1,"currency":"EUR","payment_method":"\\u0034111111111111111"}',
    "card beside a letter": _with(description="x4111111111111111"),
    "no card by Luhn": _with(description="4111111111111112"),
    "three wrong": _with(amount=0, currency="?", payment_method=""),
    "nothing required": b"{}",
    "list": b"[]",
    "cut off": b'{"amount":1',
    "two values": _with() + b"{}",
    "not UTF-8": b'{"amount":1,"currency":"EUR","payment_method":"\xff"}',
    "empty": b"",
}


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """(address, key) of a running peer."""
    built = builds.BUILT / "go-peer"
    if not built.exists():
        pytest.skip("the Go peer is not built: `make bench-gateway` does")
    folder = tmp_path_factory.mktemp("peer")
    setup = catalogue.new_setup(folder, free_port(), 1, "granian-rsgi")
    part = catalogue.go_peer_part(setup, built, f"127.0.0.1:{free_port()}")
    running = process.start(part)
    try:
        asyncio.run(process.wait_ready(part, running, 20))
        yield part.argv[2], setup.api_key
    finally:
        asyncio.run(process.stop(part, running))


def _ask(peer: tuple[str, str], checkout_id: str, body: bytes) -> tuple[int, dict[str, object]]:
    address, key = peer
    connection = HTTPConnection(address, timeout=10)
    try:
        headers = {"Authorization": f"Bearer {key}", "X-PAYMENT-CHECKOUT-ID": checkout_id}
        connection.request("POST", "/v1/payments", body, headers | {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


@pytest.mark.parametrize("name", BODIES)
def test_the_go_peer_decides_as_the_shard_does(peer: tuple[str, str], name: str) -> None:
    checkout_id = "checkout-1" if name == "everything" else f"body-{list(BODIES).index(name):04}"
    decision = admit(BODIES[name], checkout_id, _PSPS)
    status, answer = _ask(peer, checkout_id, BODIES[name])
    if isinstance(decision, Admitted):
        assert status == 202, answer
        return
    assert status == 400, answer
    errors = answer["errors"]
    assert isinstance(errors, list)
    assert {error["field"] for error in errors} == {problem.field for problem in decision.problems}


def test_the_go_peer_tells_a_replay_from_a_conflict(peer: tuple[str, str]) -> None:
    assert _ask(peer, "replayed-1", _with())[0] == 202
    assert _ask(peer, "replayed-1", _with(capture="automatic", metadata=None))[0] == 200
    assert _ask(peer, "replayed-1", _with(amount=2000))[0] == 422
