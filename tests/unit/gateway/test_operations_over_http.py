"""Captures, cancels, refunds and PATCH as the interface says, on the handlers themselves."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from gateway.http.message import Response
from gateway.settings import LedgerSettings, LimitsSettings
from tests.fixtures.elsewhere import grpc_of, ring_of
from tests.fixtures.shard import (
    API_KEY,
    MERCHANT,
    POLL_S,
    InProcessShard,
    assert_problem,
    document,
    fields_of,
    header,
    in_process_shard,
    known,
)
from tollgate.ids import payment_key
from tollgate.status import AUTHORIZED, FAILED, PENDING, SUCCEEDED, StatusValue
from tollgate.v1.ledger_pb2 import RequestOperationResponse
from tollgate.v1.payment_pb2 import OperationStatus, Payment

ID = "order-0001"
PATH = f"/v1/payments/{ID}"
BEARER = ("Authorization", f"Bearer {API_KEY}")
JSON = ("Content-Type", "application/json")
KEY = ("Idempotency-Key", "key-1")
PAN = "4111111111111111"


@pytest.fixture
async def shard(tmp_path: Path) -> InProcessShard:
    return in_process_shard(tmp_path)


async def ask(
    shard: InProcessShard,
    what: str,
    body: object = None,
    *headers: tuple[str, str],
    key: tuple[str, str] | None = KEY,
) -> Response:
    sent = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    given = (BEARER, *((JSON,) if sent else ()), *((key,) if key else ()), *headers)
    return await shard.send("POST", f"{PATH}/{what}", *given, body=sent)


async def test_a_capture_is_accepted_shown_and_told_by_its_address(shard: InProcessShard) -> None:
    known(shard, AUTHORIZED)
    accepted = await ask(shard, "capture", {"amount": 500})
    assert accepted.status == 202
    operation = document(accepted)
    assert set(operation) == {"id", "type", "amount", "status", "failure", "created_at"}
    assert (operation["type"], operation["amount"], operation["status"]) == ("capture", 500, "pending")
    assert header(accepted, "location") == f"{PATH}/operations/{operation['id']}"
    assert header(accepted, "retry-after") == "2"
    assert header(accepted, "cache-control") == "no-store"
    told = await shard.send("GET", header(accepted, "location") or "", BEARER)
    assert (told.status, document(told)) == (200, operation)
    payment = document(await shard.get(ID))
    assert (payment["version"], payment["operations"]) == (3, [operation])


@pytest.mark.parametrize(("what", "status"), [("capture", AUTHORIZED), ("cancel", AUTHORIZED)])
@pytest.mark.parametrize("body", [None, {}])
async def test_without_a_body_it_is_about_all_there_is(
    shard: InProcessShard, what: str, status: StatusValue, body: object
) -> None:
    known(shard, status)
    accepted = await ask(shard, what, body)
    assert (accepted.status, document(accepted)["amount"]) == (202, 1999)


async def test_what_is_settled_at_once_is_202_and_nobody_need_come_again(shard: InProcessShard) -> None:
    known(shard, PENDING)
    accepted = await ask(shard, "cancel")
    assert (accepted.status, document(accepted)["status"]) == (202, "succeeded")
    assert header(accepted, "retry-after") is None
    assert document(await shard.get(ID))["status"] == "canceled"


@pytest.mark.parametrize("written", ["key-1", '"key-1"'])
async def test_the_same_key_and_content_is_the_same_operation(shard: InProcessShard, written: str) -> None:
    known(shard, SUCCEEDED)
    first = await ask(shard, "refunds", {"amount": 500, "reason": "torn"})
    again = await ask(shard, "refunds", {"reason": "torn", "amount": 500}, key=("Idempotency-Key", written))
    assert (again.status, document(again)) == (200, document(first))
    assert header(again, "idempotent-replayed") == "true"
    other = await ask(shard, "refunds", {"amount": 501, "reason": "torn"})
    assert_problem(other, 422, "idempotency_key_reused")


async def test_a_key_is_of_one_payment(shard: InProcessShard) -> None:
    known(shard, SUCCEEDED)
    known(shard, SUCCEEDED, "order-0002")
    assert (await ask(shard, "refunds")).status == 202
    assert (await shard.send("POST", "/v1/payments/order-0002/refunds", BEARER, KEY)).status == 202


async def test_of_two_full_refunds_one_is_refused_with_a_reason(shard: InProcessShard) -> None:
    known(shard, SUCCEEDED)
    assert (await ask(shard, "refunds")).status == 202
    refused = await ask(shard, "refunds", key=("Idempotency-Key", "key-2"))
    assert_problem(refused, 422, "amount_too_large")
    assert "0 remain of 1999 captured" in document(refused)["detail"]


async def test_what_its_status_does_not_allow_is_409(shard: InProcessShard) -> None:
    known(shard, FAILED)
    for what in ("capture", "cancel", "refunds"):
        assert_problem(await ask(shard, what), 409, "invalid_transition")


async def test_more_than_is_authorized_is_422(shard: InProcessShard) -> None:
    known(shard, AUTHORIZED)
    assert_problem(await ask(shard, "capture", {"amount": 2000}), 422, "amount_too_large")


@pytest.mark.parametrize("what", ["capture", "cancel", "refunds"])
async def test_a_key_is_required(shard: InProcessShard, what: str) -> None:
    known(shard, AUTHORIZED)
    assert_problem(await ask(shard, what, key=None), 400, "missing_idempotency_key")
    assert shard.ledger.asked == 0


@pytest.mark.parametrize("key", ["", '""', "a b", "a\tb", "é", '"open', "a" * 256, f'"{"a" * 256}"', PAN])
async def test_a_key_that_is_none_is_refused_and_not_repeated(shard: InProcessShard, key: str) -> None:
    known(shard, SUCCEEDED)
    refused = await ask(shard, "refunds", {"amount": 0}, key=("Idempotency-Key", key))
    assert_problem(refused, 400, "invalid_request")
    assert fields_of(refused) == ["Idempotency-Key", "amount"]
    assert len(key) < 3 or key.encode() not in refused.body


@pytest.mark.parametrize("key", ["a", "a" * 255, f'"{"a" * 255}"', "~!x", 'a"b', "\\"])
async def test_a_key_is_any_visible_ascii(shard: InProcessShard, key: str) -> None:
    known(shard, SUCCEEDED)
    assert (await ask(shard, "refunds", key=("Idempotency-Key", key))).status == 202


async def test_two_keys_are_none(shard: InProcessShard) -> None:
    known(shard, SUCCEEDED)
    refused = await ask(shard, "refunds", None, ("Idempotency-Key", "key-2"))
    assert_problem(refused, 400, "invalid_request")
    assert fields_of(refused) == ["Idempotency-Key"]


@pytest.mark.parametrize(
    ("what", "body", "fields"),
    [
        ("capture", {"amount": 0, "reason": "x"}, ["amount", "reason"]),
        ("capture", {"amount": 1.0}, ["amount"]),
        ("capture", {"amount": True}, ["amount"]),
        ("capture", {"amount": "1"}, ["amount"]),
        ("cancel", {"amount": 1}, ["amount"]),
        ("refunds", {"amount": 10**11, "reason": "a" * 501}, ["amount", "reason"]),
        ("refunds", b'{"amount": 1, "amount": 1}', ["amount"]),
        ("refunds", {"reason": "a\0b"}, ["reason"]),
        ("refunds", {"reason": f"card {PAN}"}, ["reason"]),
        ("refunds", {"cvv": "1"}, ["cvv"]),
        ("refunds", b"[]", ["body"]),
        ("refunds", b"{", ["body"]),
        ("refunds", b"\xff", ["body"]),
    ],
)
async def test_every_wrong_field_is_listed_and_nothing_repeated(
    shard: InProcessShard, what: str, body: object, fields: list[str]
) -> None:
    known(shard, SUCCEEDED)
    refused = await ask(shard, what, body)
    assert_problem(refused, 400, "invalid_request")
    assert sorted(set(fields_of(refused))) == sorted(fields)
    assert PAN.encode() not in refused.body
    assert shard.ledger.asked == 0


async def test_a_body_is_json_and_bounded(shard: InProcessShard) -> None:
    known(shard, SUCCEEDED)
    path = f"{PATH}/refunds"
    assert_problem(await shard.send("POST", path, BEARER, KEY, body=b"{}"), 415, "unsupported_media_type")
    assert_problem(await shard.send("POST", path, BEARER, KEY, JSON, body=None), 413, "payload_too_large")
    nothing = ("Content-Type", "application/octet-stream")  # as aiohttp says of a body that is not there
    assert (await shard.send("POST", path, BEARER, KEY, nothing)).status == 202


async def test_what_is_not_in_postgres_yet_is_409_and_what_is_nowhere_404(shard: InProcessShard) -> None:
    assert_problem(await ask(shard, "cancel"), 404, "not_found")
    await shard.post(ID)
    early = await ask(shard, "cancel")
    assert_problem(early, 409, "not_yet_processed")
    assert header(early, "retry-after") == "1"
    early = await shard.send("PATCH", PATH, BEARER, JSON, ("If-Match", '"0"'), body=b'{"description":"x"}')
    assert_problem(early, 409, "not_yet_processed")


async def test_what_another_shard_has_is_not_yet_processed_either(shard: InProcessShard) -> None:
    shard.ring.set(ring_of((3, 4)))
    shard.others.at[grpc_of(4)] = shard.others[4]
    shard.others[4].has(Payment(merchant=MERCHANT, checkout_id=ID, status=PENDING))
    assert_problem(await ask(shard, "cancel"), 409, "not_yet_processed")
    shard.others[4].payments.clear()
    shard.others[4].silent = True
    assert_problem(
        await shard.send("POST", "/v1/payments/order-0003/cancel", BEARER, KEY), 503, "owner_unavailable"
    )


async def test_a_silent_ledger_is_503_and_payments_go_on(shard: InProcessShard) -> None:
    await shard.post(ID)
    shard.ledger.silent = True
    for what in ("capture", "cancel", "refunds"):
        assert_problem(await ask(shard, what), 503, "ledger_unavailable")
    change = await shard.send("PATCH", PATH, BEARER, JSON, ("If-Match", '"0"'), body=b'{"description":"x"}')
    assert_problem(change, 503, "ledger_unavailable")
    assert_problem(await shard.send("GET", f"{PATH}/operations/op_1", BEARER), 503, "ledger_unavailable")
    assert_problem(await shard.send("GET", "/v1/payments", BEARER), 503, "ledger_unavailable")
    assert (await shard.get(ID)).status == 200
    assert (await shard.post("order-0002")).status == 202
    assert b'tollgate_ledger_calls_total{call="request_operation",outcome="silent"} 3.0' in (
        shard.metrics.render()
    )


async def test_no_more_is_asked_of_the_ledger_at_a_time_than_may_be(tmp_path: Path) -> None:
    shard = in_process_shard(tmp_path, ledger=LedgerSettings(in_flight_max=1))
    known(shard, SUCCEEDED)
    shard.ledger.held = asyncio.Event()
    first = asyncio.create_task(ask(shard, "refunds"))
    async with asyncio.timeout(5):
        while not shard.ledger.asked:  # to be asked is no event
            await asyncio.sleep(POLL_S)
    assert_problem(await shard.send("GET", "/v1/payments", BEARER), 503, "overloaded")
    shard.ledger.held.set()
    assert (await first).status == 202
    assert (await shard.send("GET", "/v1/payments", BEARER)).status == 200


async def test_who_asks_must_be_known_and_keeps_to_his_rate(tmp_path: Path) -> None:
    limits = LimitsSettings(key_post_per_second=0.001, key_post_burst=1)
    shard = in_process_shard(tmp_path, limits=limits)
    known(shard, SUCCEEDED)
    shard.merchants.copy = b""
    stranger = ("Authorization", "Bearer nobodys")
    assert_problem(await shard.send("POST", f"{PATH}/refunds", stranger, KEY), 401, "unauthorized")
    assert (await ask(shard, "refunds", {"amount": 1})).status == 202
    limited = await ask(shard, "refunds", {"amount": 1})
    assert_problem(limited, 429, "rate_limited")
    assert int(header(limited, "retry-after") or "") >= 1


@pytest.mark.parametrize("path", [f"{PATH}/capture\n", f"{PATH}/capture/", "/v1/payments/short/capture"])
async def test_an_operation_has_one_address(shard: InProcessShard, path: str) -> None:
    known(shard, AUTHORIZED)
    assert_problem(await shard.send("POST", path, BEARER, KEY), 404, "not_found")


async def test_the_header_must_agree_with_the_path(shard: InProcessShard) -> None:
    known(shard, AUTHORIZED)
    other = await ask(shard, "capture", None, ("X-PAYMENT-CHECKOUT-ID", "order-0002"))
    assert_problem(other, 400, "invalid_request")
    assert (await ask(shard, "capture", None, ("X-PAYMENT-CHECKOUT-ID", ID))).status == 202


async def test_an_ended_operation_is_told_without_the_ledger(shard: InProcessShard) -> None:
    known(shard, SUCCEEDED)
    operation = document(await ask(shard, "refunds"))["id"]
    path = f"{PATH}/operations/{operation}"
    assert header(await shard.send("GET", path, BEARER), "retry-after") == "2"
    payment = shard.ledger.payments[MERCHANT, ID]
    payment.version += 1
    payment.operations[0].status = OperationStatus.OPERATION_STATUS_FAILED
    payment.operations[0].failure.code = "insufficient_funds"
    ended = await shard.send("GET", path, BEARER)
    assert (document(ended)["status"], header(ended, "retry-after")) == ("failed", None)
    assert document(ended)["failure"] == {"code": "insufficient_funds", "message": ""}
    shard.clock.advance(131)
    await shard.get(ID)  # an open operation that stands still is looked up like an open payment
    async with asyncio.timeout(5):
        while document(await shard.get(ID))["operations"][0]["status"] != "failed":
            await asyncio.sleep(POLL_S)
    shard.ledger.silent = True
    assert document(await shard.send("GET", path, BEARER)) == document(ended)


@pytest.mark.parametrize("operation", ["op_none", "payment", "op-1", "a" * 65, "%00", "é"])
async def test_an_operation_that_is_not_there_is_404(shard: InProcessShard, operation: str) -> None:
    known(shard, SUCCEEDED)
    assert_problem(await shard.send("GET", f"{PATH}/operations/{operation}", BEARER), 404, "not_found")


async def test_what_came_of_it_is_on_disk_here_before_it_is_answered(shard: InProcessShard) -> None:
    await shard.post(ID)
    known(shard, AUTHORIZED)
    accepted = document(await ask(shard, "capture"))
    assert document(await shard.get(ID))["operations"] == [accepted]
    assert shard.ledger.asked == 1, "nothing was looked up"


async def test_an_answer_of_the_ledger_that_is_none_is_a_defect_and_no_promise(
    shard: InProcessShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = RequestOperationResponse()
    monkeypatch.setattr(shard.ledger.deciding, "request_operation", lambda _request: nothing)
    assert_problem(await ask(shard, "capture"), 500, "internal")


async def test_what_a_shard_does_not_own_it_tells_and_does_not_keep(shard: InProcessShard) -> None:
    shard.ring.set(ring_of((4,)))
    known(shard, AUTHORIZED)
    assert (await ask(shard, "capture")).status == 202
    assert shard.committer.read(payment_key(MERCHANT, ID)) is None
