"""GET /v1/payments/{id} as the interface says, on the handlers themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.planner import Snapshot, StatusBatch
from gateway.settings import PspSettings
from tests.fixtures.shard import (
    API_KEY,
    BODY,
    MERCHANT,
    InProcessShard,
    assert_problem,
    document,
    header,
    in_process_shard,
)
from tollgate.client_secrets import ClientSecrets
from tollgate.ids import payment_key
from tollgate.status import StatusValue
from tollgate.v1.payment_pb2 import Payment, Status

ID = "order-0001"
BEARER = ("Authorization", f"Bearer {API_KEY}")
JSON = ("Content-Type", "application/json")
NAMED = ("X-PAYMENT-CHECKOUT-ID", ID)
PAN = "4111111111111111"
CLIENT_SECRETS = ClientSecrets(b"0123456789abcdef" * 2)


@pytest.fixture
async def shard(tmp_path: Path) -> InProcessShard:
    return in_process_shard(
        tmp_path, psp=PspSettings(default="simulator", names=frozenset({"simulator", "b"}))
    )


async def apply(shard: InProcessShard, status: StatusValue, version: int) -> None:
    stored = shard.committer.read(payment_key(MERCHANT, ID))
    assert stored is not None
    payment = Payment.FromString(stored)
    payment.status, payment.version = status, version
    snapshot = Snapshot(payment_key(MERCHANT, ID), version, payment.SerializeToString())
    await shard.committer.commit(StatusBatch((snapshot,)))


async def test_a_read_is_the_payment_with_its_version_as_tag(shard: InProcessShard) -> None:
    accepted = await shard.post(ID)
    response = await shard.get(ID)
    assert response.status == 200
    assert header(response, "etag") == '"0"'
    assert header(response, "cache-control") == "no-store"
    assert header(response, "retry-after") == "2"
    assert document(response) == document(accepted)


@pytest.mark.parametrize(
    ("status", "is_open"),
    [
        (Status.STATUS_PENDING, True),
        (Status.STATUS_PROCESSING, True),
        (Status.STATUS_REQUIRES_ACTION, True),
        (Status.STATUS_AUTHORIZED, False),
        (Status.STATUS_SUCCEEDED, False),
        (Status.STATUS_FAILED, False),
    ],
)
async def test_who_polls_is_told_to_come_again_while_it_is_open(
    shard: InProcessShard, status: StatusValue, is_open: bool
) -> None:
    await shard.post(ID)
    await apply(shard, status, 2)
    for response in (await shard.get(ID), await shard.get(ID, ("If-None-Match", '"2"'))):
        assert header(response, "retry-after") == ("2" if is_open else None)
        assert header(response, "etag") == '"2"'
        assert header(response, "cache-control") == "no-store"


@pytest.mark.parametrize(
    ("tags", "status"),
    [
        (['"0"'], 304),
        (['W/"0"'], 304),
        (["*"], 304),
        (['"7", "0"'], 304),
        (['"7"', '"0"'], 304),
        (['"1"'], 200),
        (["0"], 200),
        (['"00"'], 200),
        ([""], 200),
    ],
)
async def test_if_none_match_is_compared_weakly(shard: InProcessShard, tags: list[str], status: int) -> None:
    await shard.post(ID)
    response = await shard.get(ID, *(("If-None-Match", tag) for tag in tags))
    assert response.status == status
    assert bool(response.body) == (status == 200)


async def test_a_browser_reads_with_its_client_secret_and_sees_less(shard: InProcessShard) -> None:
    accepted = document(await shard.post(ID, BODY | {"customer_id": "cus-1", "metadata": {"a": "b"}}))
    secret = accepted["client_secret"]
    assert CLIENT_SECRETS.merchant(secret, ID) == MERCHANT
    response = await shard.get(ID, query=f"client_secret={secret}")
    assert response.status == 200
    assert header(response, "access-control-allow-origin") == "*"
    seen = document(response)
    assert set(accepted) - set(seen) == {"metadata", "customer_id"}
    assert all(seen[name] == accepted[name] for name in seen)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("client_secret=acme-AAAA", 401),
        ("client_secret=", 401),
        ("client_secret", 400),
        ("client_secret=a&client_secret=b", 400),
        ("client_secret=a&x=1", 400),
        ("x=1", 400),
        ("%FF=%FF", 400),
    ],
)
async def test_a_query_is_read_strictly(shard: InProcessShard, query: str, status: int) -> None:
    await shard.post(ID)
    response = await shard.get(ID, query=query)
    assert_problem(response, status, "unauthorized" if status == 401 else "invalid_request")


async def test_one_payments_client_secret_opens_no_other(shard: InProcessShard) -> None:
    await shard.post(ID)
    await shard.post("order-0002")
    secret = CLIENT_SECRETS.secret(MERCHANT, "order-0002")
    assert_problem(await shard.get(ID, query=f"client_secret={secret}"), 401, "unauthorized")


async def test_the_preflight_is_answered_on_the_payment_alone(shard: InProcessShard) -> None:
    response = await shard.send("OPTIONS", f"/v1/payments/{ID}")
    assert response.status == 204
    assert header(response, "access-control-allow-origin") == "*"
    assert header(response, "access-control-allow-methods") == "GET, HEAD"
    collection = await shard.send("OPTIONS", "/v1/payments")
    assert collection.status == 405
    assert header(collection, "access-control-allow-origin") is None


async def test_the_header_must_agree_with_the_path(shard: InProcessShard) -> None:
    await shard.post(ID)
    assert (await shard.get(ID, NAMED)).status == 200
    assert_problem(await shard.get(ID, ("X-PAYMENT-CHECKOUT-ID", "order-0002")), 400, "invalid_request")


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/payments/", "/v1/payments/a/b", "/v2/payments", f"/v1/payments/{PAN}"]
)
async def test_a_path_with_nothing_there_is_404(shard: InProcessShard, path: str) -> None:
    response = await shard.send("GET", path, BEARER)
    assert_problem(response, 404, "not_found")
    assert PAN.encode() not in response.body


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/payments", "GET, HEAD, POST"),
        ("DELETE", f"/v1/payments/{ID}", "GET, HEAD, OPTIONS, PATCH"),
        ("GET", f"/v1/payments/{ID}/capture", "POST"),
        ("HEAD", f"/v1/payments/{ID}/refunds", "POST"),
        ("POST", f"/v1/payments/{ID}/operations/op_1", "GET, HEAD"),
        ("POST", "/readyz", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_405_with_those_allowed(
    shard: InProcessShard, method: str, path: str, allowed: str
) -> None:
    response = await shard.send(method, path, BEARER)
    assert response.status == 405
    assert header(response, "allow") == allowed


async def test_head_is_get_without_its_body(shard: InProcessShard) -> None:
    await shard.post(ID)
    response = await shard.send("HEAD", f"/v1/payments/{ID}", BEARER)
    assert (response.status, response.body) == (200, b"")
    assert header(response, "etag") == '"0"'
