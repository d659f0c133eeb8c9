"""/v1/customers and /v1/payment_methods as the interface says, on the handlers themselves."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec
import pytest

from gateway.http.message import Response
from gateway.openapi import examples
from gateway.openapi.document import document as described
from gateway.vault_requests import CustomerRequest, PaymentMethodRequest
from tests.fixtures.shard import (
    API_KEY,
    InProcessShard,
    assert_problem,
    document,
    header,
    in_process_shard,
)

PAN = "4111111111111111"
CUSTOMERS, METHODS = "/v1/customers", "/v1/payment_methods"
NOBODY = "cus_000000000000000000000fff"


@pytest.fixture
async def shard(tmp_path: Path) -> InProcessShard:
    return in_process_shard(tmp_path)


async def ask(shard: InProcessShard, method: str, path: str, query: str = "") -> Response:
    return await shard.send(method, path, ("Authorization", f"Bearer {API_KEY}"), query=query)


async def make(shard: InProcessShard, path: str, body: object, *keys: str) -> Response:
    headers = (
        ("Authorization", f"Bearer {API_KEY}"),
        ("Content-Type", "application/json"),
        *(("Idempotency-Key", key) for key in keys),
    )
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await shard.send("POST", path, *headers, body=raw)


@pytest.mark.parametrize(("path", "bodies"), [(CUSTOMERS, examples.CUSTOMERS), (METHODS, examples.METHODS)])
async def test_what_is_made_is_found_at_its_location_as_it_was_given(
    shard: InProcessShard, path: str, bodies: dict[str, examples.Json]
) -> None:
    for body in bodies.values():
        made = await make(shard, path, body)
        assert (made.status, header(made, "cache-control")) == (201, "no-store")
        told = document(made)
        assert header(made, "location") == f"{path}/{told['id']}"
        assert {name: told[name] for name in body} == body
        absent = told.keys() - {*body, "id", "created_at"}
        assert all(told[name] in (None, {}) for name in absent)
        found = await ask(shard, "GET", f"{path}/{told['id']}")
        assert (found.status, document(found)) == (200, told)


async def test_each_post_makes_something_new_and_under_a_key_it_is_made_once(shard: InProcessShard) -> None:
    ids = {document(await make(shard, CUSTOMERS, {"name": "Ada"}))["id"] for _ in range(3)}
    assert len(ids) == 3
    first = await make(shard, CUSTOMERS, {"name": "Ada"}, "key-1")
    again = await make(shard, CUSTOMERS, {"name": "Ada"}, '"key-1"')
    assert (first.status, again.status, header(again, "idempotent-replayed")) == (201, 200, "true")
    assert document(again) == document(first)
    assert_problem(await make(shard, CUSTOMERS, {"name": "Bob"}, "key-1"), 422, "idempotency_key_reused")
    assert (await make(shard, METHODS, {"token": "pm_ok"}, "key-1")).status == 201


async def test_every_wrong_field_is_listed_and_no_card_number_gets_through(shard: InProcessShard) -> None:
    body = {"name": 7, "email": "x" * 321, "colour": "red", "metadata": {"cvv": "1"}, "description": PAN}
    refused = await make(shard, CUSTOMERS, body)
    assert_problem(refused, 400, "invalid_request")
    named = {error["field"] for error in document(refused)["errors"]}
    assert named == {"name", "email", "colour", "metadata", "description"}
    for wrong in (
        {},
        {"token": ""},
        {"token": PAN},
        {"token": "pm_ok", "customer_id": ""},
        {"token": "pm_ok", "card": {"number": PAN}},
        {"token": "a\0b"},
        b'{"token": "a", "token": "b"}',
        b"[]",
        b"",
    ):
        answer = await make(shard, METHODS, wrong)
        assert_problem(answer, 400, "invalid_request")
        assert PAN.encode() not in answer.body
    for keys in (("",), ("a b",), (PAN,), ("one", "two")):
        assert_problem(await make(shard, METHODS, {"token": "pm_ok"}, *keys), 400, "invalid_request")
    assert shard.vault.kept.methods == {}
    huge = await shard.send(
        "POST",
        METHODS,
        ("Authorization", f"Bearer {API_KEY}"),
        ("Content-Type", "application/json"),
        body=None,
    )
    assert_problem(huge, 413, "payload_too_large")


async def test_a_method_of_an_unknown_customer_of_ours_is_refused_and_a_merchants_own_name_is_not(
    shard: InProcessShard,
) -> None:
    refused = await make(shard, METHODS, {"token": "pm_ok", "customer_id": NOBODY})
    assert_problem(refused, 422, "unknown_customer")
    customer = document(await make(shard, CUSTOMERS, {}))["id"]
    for owner in (customer, "customer-77"):
        assert (await make(shard, METHODS, {"token": "pm_ok", "customer_id": owner})).status == 201


async def test_a_deleted_method_is_gone_and_deleting_it_again_is_no_error(shard: InProcessShard) -> None:
    path = header(await make(shard, METHODS, {"token": "pm_ok"}), "location") or ""
    for _again in range(2):
        deleted = await ask(shard, "DELETE", path)
        assert (deleted.status, deleted.body) == (204, b"")
    assert_problem(await ask(shard, "GET", path), 404, "not_found")
    assert document(await ask(shard, "GET", METHODS))["data"] == []
    for unknown in (f"{METHODS}/pmt_000000000000000000000fff", f"{METHODS}/x", f"{CUSTOMERS}/{NOBODY}"):
        assert_problem(await ask(shard, "GET", unknown), 404, "not_found")
    assert_problem(await ask(shard, "DELETE", f"{METHODS}/x"), 404, "not_found")
    refused = await ask(shard, "DELETE", f"{CUSTOMERS}/{NOBODY}")
    assert (refused.status, header(refused, "allow")) == (405, "GET, HEAD")
    refused = await ask(shard, "PUT", CUSTOMERS)
    assert (refused.status, header(refused, "allow")) == (405, "GET, HEAD, POST")


async def test_a_list_is_read_page_by_page_and_says_what_it_does_not_know(shard: InProcessShard) -> None:
    made = [
        document(await make(shard, METHODS, {"token": "pm_ok", "customer_id": f"c-{number % 2}"}))["id"]
        for number in range(5)
    ]
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = document(await ask(shard, "GET", METHODS, f"limit=2{cursor and f'&cursor={cursor}'}"))
        seen += [one["id"] for one in page["data"]]
        cursor = page["next_cursor"]
    assert seen == made[::-1]
    own = document(await ask(shard, "GET", METHODS, "customer_id=c-1"))
    assert [one["id"] for one in own["data"]] == [made[3], made[1]]
    assert (await ask(shard, "GET", METHODS, f"cursor={examples.VAULT_CURSOR}")).status == 200
    for wrong in (
        "limit=0",
        "limit=101",
        "cursor=x",
        f"cursor={examples.CURSOR}",
        "customer_id=",
        "a=b",
        "limit",
    ):
        assert_problem(await ask(shard, "GET", METHODS, wrong), 400, "invalid_request")
    assert_problem(await ask(shard, "GET", CUSTOMERS, "customer_id=c-1"), 400, "invalid_request")
    assert_problem(await ask(shard, "GET", f"{METHODS}/{made[0]}", "a=b"), 400, "invalid_request")


async def test_nobody_without_a_key_learns_anything_and_a_silent_ledger_is_503(shard: InProcessShard) -> None:
    for method, path in (
        ("GET", CUSTOMERS),
        ("POST", METHODS),
        ("DELETE", f"{METHODS}/{examples.METHOD_ID}"),
    ):
        assert_problem(await shard.send(method, path), 401, "unauthorized")
    shard.ledger.silent = True
    for answer in await asyncio.gather(
        make(shard, CUSTOMERS, {}),
        ask(shard, "GET", CUSTOMERS),
        ask(shard, "GET", f"{CUSTOMERS}/{examples.CUSTOMER_ID}"),
        make(shard, METHODS, {"token": "pm_ok"}),
        ask(shard, "GET", METHODS),
        ask(shard, "GET", f"{METHODS}/{examples.METHOD_ID}"),
        ask(shard, "DELETE", f"{METHODS}/{examples.METHOD_ID}"),
    ):
        assert_problem(answer, 503, "ledger_unavailable")


def test_the_document_has_the_fields_that_are_read() -> None:
    schemas = described(["simulator"])["components"]["schemas"]
    for shape in (CustomerRequest, PaymentMethodRequest):
        fields = msgspec.structs.fields(shape)
        assert list(schemas[shape.__name__]["properties"]) == [field.encode_name for field in fields]
        assert schemas[shape.__name__]["required"] == [
            field.encode_name for field in fields if field.required
        ]
