"""PATCH of a payment as the interface says, on the handlers themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.http.message import Response
from tests.fixtures.shard import (
    API_KEY,
    InProcessShard,
    assert_problem,
    document,
    fields_of,
    header,
    in_process_shard,
    known,
)
from tollgate.status import SUCCEEDED

ID = "order-0001"
BEARER = ("Authorization", f"Bearer {API_KEY}")
JSON = ("Content-Type", "application/json")
PAN = "4111111111111111"
CREATED = json.dumps({"amount": 1234, "currency": "EUR", "payment_method": "pm_ok"}).encode()


@pytest.fixture
async def shard(tmp_path: Path) -> InProcessShard:
    return in_process_shard(tmp_path)


async def change(shard: InProcessShard, body: object, *tags: str, checkout_id: str = ID) -> Response:
    headers = (BEARER, JSON, *(("If-Match", tag) for tag in tags))
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await shard.send("PATCH", f"/v1/payments/{checkout_id}", *headers, body=sent)


async def test_no_other_origin_reads_what_a_change_comes_to(shard: InProcessShard) -> None:
    """The preflight allows a browser GET and HEAD; only who holds a secret key changes a payment."""
    answers = [await change(shard, {"description": "a"}, '"1"')]
    await shard.send("POST", "/v1/payments", BEARER, JSON, ("X-PAYMENT-CHECKOUT-ID", ID), body=CREATED)
    answers.append(await change(shard, {"description": "a"}, '"0"'))
    answers.append(await shard.send("DELETE", f"/v1/payments/{ID}", BEARER))
    assert [header(answer, "access-control-allow-origin") for answer in answers] == [None] * 3


async def test_a_change_is_the_payments_next_version(shard: InProcessShard) -> None:
    known(shard, SUCCEEDED)
    changed = await change(shard, {"description": "shoes", "metadata": {"a": "b"}}, '"2"')
    assert (changed.status, header(changed, "etag")) == (200, '"3"')
    told = document(changed)
    assert (told["description"], told["metadata"], told["version"]) == ("shoes", {"a": "b"}, 3)
    assert document(await shard.get(ID)) == told
    assert_problem(await change(shard, {"description": "boots"}, '"2"'), 412, "version_mismatch")
    only = document(await change(shard, {"metadata": None}, '"3"'))
    assert (only["description"], only["metadata"]) == ("shoes", {})
    assert document(await change(shard, {"description": None}, '"4"'))["description"] is None


@pytest.mark.parametrize("tag", ['W/"2"', '"1"', '"02"', '"x"', '""', f'"{"9" * 30}"'])
async def test_a_tag_that_is_not_the_payments_is_412(shard: InProcessShard, tag: str) -> None:
    known(shard, SUCCEEDED)
    assert_problem(await change(shard, {"description": "x"}, tag), 412, "version_mismatch")


@pytest.mark.parametrize("tags", [("*",), ("2",), ('"2", "3"',), ('"2"', '"2"')])
async def test_a_change_is_of_one_version(shard: InProcessShard, tags: tuple[str, ...]) -> None:
    known(shard, SUCCEEDED)
    refused = await change(shard, {"description": "x", "metadata": 1}, *tags)
    assert_problem(refused, 400, "invalid_request")
    assert fields_of(refused) == ["metadata", "If-Match"]


async def test_a_change_without_the_version_that_was_read_is_428(shard: InProcessShard) -> None:
    known(shard, SUCCEEDED)
    assert_problem(await change(shard, {"description": "x"}), 428, "precondition_required")
    assert shard.ledger.asked == 0


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["body"]),
        ({"amount": 1}, ["amount", "body"]),
        ({"description": "a" * 501, "metadata": {"a" * 41: "b"}}, ["description", "metadata"]),
        ({"metadata": {str(n): "" for n in range(21)}}, ["metadata"]),
        ({"metadata": {"pan": "1"}}, ["metadata"]),
        (b'{"metadata": {"a": "1", "a": "1"}}', ["metadata"]),
        ({"description": PAN}, ["description"]),
    ],
)
async def test_every_wrong_field_of_a_change_is_listed(
    shard: InProcessShard, body: object, fields: list[str]
) -> None:
    known(shard, SUCCEEDED)
    refused = await change(shard, body, '"2"')
    assert_problem(refused, 400, "invalid_request")
    assert set(fields_of(refused)) <= set(fields)
    assert PAN.encode() not in refused.body


async def test_a_change_is_on_disk_here_before_it_is_answered(shard: InProcessShard) -> None:
    await shard.post(ID)
    known(shard, SUCCEEDED)
    changed = await change(shard, {"description": "shoes"}, '"2"')
    assert document(await shard.get(ID)) == document(changed)
    assert shard.ledger.asked == 1, "nothing was looked up"
