"""POST /v1/payments as the interface says, on the handlers themselves; and what every route has in common."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.merchants import normalized
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
from tollgate.clock import rfc3339
from tollgate.ids import api_key_hash, payment_key
from tollgate.shard_layout import CHANGES
from tollgate.status import StatusValue
from tollgate.v1.change_pb2 import Change
from tollgate.v1.ledger_pb2 import Merchant
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


async def test_an_accepted_payment_is_answered_whole(shard: InProcessShard) -> None:
    body = BODY | {
        "capture": "manual",
        "psp": "b",
        "customer_id": "cus-1",
        "description": "é",
        "return_url": "https://shop.example/back",
        "metadata": {"z": "1", "a": "2"},
        "payment_checkout_id": ID,
    }
    response = await shard.post(ID, body)
    assert response.status == 202
    assert header(response, "location") == f"/v1/payments/{ID}"
    assert header(response, "retry-after") == "2"
    at = rfc3339(shard.clock.now_us())
    assert document(response) == {
        "payment_checkout_id": ID,
        "status": "pending",
        "amount": 1200,
        "currency": "USD",
        "captured_amount": 0,
        "refunded_amount": 0,
        "capture": "manual",
        "version": 0,
        "psp": "b",
        "psp_reference": None,
        "risk_score": None,
        "failure": None,
        "next_action": None,
        "customer_id": "cus-1",
        "description": "é",
        "metadata": {"z": "1", "a": "2"},
        "operations": [],
        "client_secret": CLIENT_SECRETS.secret(MERCHANT, ID),
        "created_at": at,
        "updated_at": at,
    }


async def test_the_change_carries_the_stored_payment_and_the_callers_trace(shard: InProcessShard) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await shard.post(ID, None, ("traceparent", trace))
    [(_, raw)] = shard.store.scan(CHANGES, b"", 9)
    change = Change.FromString(raw)
    assert (change.key, change.shard, change.sequence) == (f"{MERCHANT}/{ID}", 3, 1)
    assert change.traceparent == change.acceptance.traceparent == trace
    stored = shard.committer.read(payment_key(MERCHANT, ID))
    change.acceptance.change_sequence = 1  # which the store knows beside
    assert stored is not None
    assert Payment.FromString(stored) == change.acceptance
    assert change.acceptance.expires_at_us == shard.clock.now_us() + 3600 * 1_000_000


async def test_a_trace_that_spells_a_card_number_is_replaced(shard: InProcessShard) -> None:
    await shard.post(ID, None, ("traceparent", f"00-0af7651916cd43dd8448eb211c80319c-{PAN}-01"))
    [(_, raw)] = shard.store.scan(CHANGES, b"", 9)
    assert PAN.encode() not in raw


async def test_the_same_content_again_is_a_replay_of_the_payment_as_it_is_now(shard: InProcessShard) -> None:
    first = await shard.post(ID)
    again = await shard.post(ID, BODY | {"capture": "automatic", "psp": None})
    assert again.status == 200
    assert header(again, "idempotent-replayed") == "true"
    assert document(again) == document(first)
    await apply(shard, Status.STATUS_SUCCEEDED, 3)
    later = document(await shard.post(ID))
    assert (later["status"], later["version"]) == ("succeeded", 3)
    assert shard.committer.durable.last == 1


@pytest.mark.parametrize(
    "change", [{"amount": 1}, {"capture": "manual"}, {"psp": "simulator"}, {"metadata": {}}]
)
async def test_other_content_under_the_same_id_is_refused(
    shard: InProcessShard, change: dict[str, object]
) -> None:
    await shard.post(ID)
    assert_problem(await shard.post(ID, BODY | change), 422, "idempotency_key_reused")
    assert document(await shard.get(ID))["amount"] == 1200


async def test_every_wrong_field_is_listed(shard: InProcessShard) -> None:
    response = await shard.post("short", {"amount": "1", "currency": "usd", "colour": 1})
    assert_problem(response, 400, "invalid_request")
    fields = {error["field"] for error in document(response)["errors"]}
    assert fields == {"X-PAYMENT-CHECKOUT-ID", "amount", "currency", "payment_method", "colour"}


@pytest.mark.parametrize("place", ["header", "key", "value", "metadata key"])
async def test_a_card_number_is_refused_and_never_repeated(shard: InProcessShard, place: str) -> None:
    body = {
        "key": BODY | {PAN: 1},
        "value": BODY | {"payment_method": f"card {PAN}"},
        "metadata key": BODY | {"metadata": {PAN: "x"}},
    }.get(place, BODY)
    response = await shard.post(PAN if place == "header" else ID, body)
    assert_problem(response, 400, "invalid_request")
    assert PAN.encode() not in response.body
    assert shard.store.scan(CHANGES, b"", 9) == []


async def test_a_missing_or_repeated_id_is_refused(shard: InProcessShard) -> None:
    raw = json.dumps(BODY).encode()
    missing = await shard.send("POST", "/v1/payments", BEARER, JSON, body=raw)
    assert_problem(missing, 400, "missing_checkout_id")
    twice = await shard.send("POST", "/v1/payments", BEARER, JSON, NAMED, NAMED, body=raw)
    assert_problem(twice, 400, "invalid_request")


@pytest.mark.parametrize(
    ("media_type", "status"),
    [
        ("application/json", 202),
        ("application/json; charset=utf-8", 202),
        ('Application/JSON;charset="UTF-8"', 202),
        ("application/json; charset=latin-1", 415),
        ("application/jsonp", 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("", 415),
    ],
)
async def test_only_json_in_utf8_is_taken(shard: InProcessShard, media_type: str, status: int) -> None:
    raw = json.dumps(BODY).encode()
    response = await shard.send("POST", "/v1/payments", BEARER, NAMED, ("Content-Type", media_type), body=raw)
    assert response.status == status
    if status != 202:
        assert_problem(response, 415, "unsupported_media_type")


async def test_a_body_without_a_type_and_one_that_is_too_large_are_refused(shard: InProcessShard) -> None:
    raw = json.dumps(BODY).encode()
    untyped = await shard.send("POST", "/v1/payments", BEARER, NAMED, body=raw)
    assert_problem(untyped, 415, "unsupported_media_type")
    large = await shard.send("POST", "/v1/payments", BEARER, NAMED, JSON, body=None)
    assert_problem(large, 413, "payload_too_large")


@pytest.mark.parametrize(
    "credentials",
    [
        [],
        [("Authorization", "")],
        [("Authorization", "Bearer")],
        [("Authorization", f"Basic {API_KEY}")],
        [("Authorization", API_KEY)],
        [("Authorization", f"Bearer {API_KEY}x")],
        [("Authorization", f"Bearer {API_KEY} {API_KEY}")],
        [BEARER, BEARER],
    ],
)
async def test_who_shows_no_known_key_learns_nothing_else(
    shard: InProcessShard, credentials: list[tuple[str, str]]
) -> None:
    shard.merchants.load(b"")
    for response in (
        await shard.send("POST", "/v1/payments", *credentials, body=b"not json"),
        await shard.send("GET", f"/v1/payments/{ID}", *credentials),
    ):
        assert_problem(response, 401, "unauthorized")
        assert header(response, "www-authenticate") == "Bearer"
        assert API_KEY.encode() not in response.body


async def test_an_unknown_key_is_not_called_wrong_before_the_first_copy(shard: InProcessShard) -> None:
    unknown = ("Authorization", "Bearer tg_sk_of_somebody_else")
    response = await shard.send("GET", f"/v1/payments/{ID}", unknown)
    assert_problem(response, 503, "not_ready")
    assert (await shard.post(ID)).status == 202, "the development key is known from the start"


async def test_a_merchant_of_the_copy_has_its_own_payments_and_default_psp(shard: InProcessShard) -> None:
    other = Merchant(id="other", default_psp="b", api_key_hashes=[api_key_hash("tg_sk_of_the_other")])
    shard.merchants.load(normalized([other]))
    await shard.post(ID)
    theirs = ("Authorization", "Bearer tg_sk_of_the_other")
    assert_problem(await shard.send("GET", f"/v1/payments/{ID}", theirs), 404, "not_found")
    raw = json.dumps(BODY | {"amount": 5}).encode()
    response = await shard.send("POST", "/v1/payments", theirs, JSON, NAMED, body=raw)
    assert (response.status, document(response)["psp"]) == (202, "b")
    assert document(await shard.get(ID))["amount"] == 1200


async def test_while_a_commit_hangs_reads_go_on_and_posts_are_refused(shard: InProcessShard) -> None:
    await shard.post(ID)
    shard.health.stalled = True
    assert_problem(await shard.post("order-0002"), 503, "not_ready")
    assert (await shard.get(ID)).status == 200
    assert (await shard.send("GET", "/readyz")).status == 503


async def test_metrics_name_no_client_input(shard: InProcessShard) -> None:
    await shard.post(ID)
    await shard.get(PAN)
    await shard.send("GET", f"/{PAN}")
    scraped = (await shard.send("GET", "/metrics")).body.decode()
    assert 'tollgate_http_requests_total{route="payments",status="202"} 1.0' in scraped
    assert "tollgate_last_sequence 1.0" in scraped
    for secret in (PAN, ID, API_KEY, MERCHANT):
        assert secret not in scraped


async def test_a_defect_is_a_problem_document_too(
    shard: InProcessShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_copy: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(shard.merchants, "find", broken)
    assert_problem(await shard.get(ID), 500, "internal")
