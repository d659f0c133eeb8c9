"""GET /v1/payments as the interface says, on the handlers themselves."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlencode

import pytest

from gateway.http.message import Response
from gateway.list_requests import cursor_of
from gateway.openapi.examples import CURSOR
from tests.fixtures.shard import (
    API_KEY,
    MERCHANT,
    InProcessShard,
    assert_problem,
    document,
    header,
    in_process_shard,
)
from tollgate.status import FAILED, SUCCEEDED
from tollgate.v1.ledger_pb2 import ListPlace
from tollgate.v1.payment_pb2 import Capture, MetadataEntry, Payment

PAN = "4111111111111111"
BEGIN_US = 1_763_719_200_000_000  # 2025-11-21T10:00:00Z


@pytest.fixture
async def shard(tmp_path: Path) -> InProcessShard:
    """The Ledger knows seven payments, each made a second after the one before, and one of a stranger's."""
    shard = in_process_shard(tmp_path)
    for number in range(7):
        shard.ledger.has(
            Payment(
                merchant=MERCHANT,
                checkout_id=f"order-000{number}",
                status=FAILED if number % 2 else SUCCEEDED,
                version=2,
                amount=1,
                currency="EUR",
                capture=Capture.CAPTURE_AUTOMATIC,
                customer_id="cus-1" if number < 2 else "",
                metadata=[MetadataEntry(key="a", value="b")],
                created_at_us=BEGIN_US + number * 1_000_000,
            )
        )
    shard.ledger.has(Payment(merchant="stranger", checkout_id="order-stranger", status=SUCCEEDED, version=1))
    return shard


async def listed(shard: InProcessShard, query: str = "", **parameters: str) -> Response:
    authorization = ("Authorization", f"Bearer {API_KEY}")
    return await shard.send("GET", "/v1/payments", authorization, query=query or urlencode(parameters))


def numbers(response: Response) -> list[int]:
    assert response.status == 200, response
    return [int(payment["payment_checkout_id"][-1]) for payment in document(response)["data"]]


async def test_a_list_is_whole_payments_newest_first(shard: InProcessShard) -> None:
    answer = await listed(shard)
    assert numbers(answer) == [6, 5, 4, 3, 2, 1, 0]
    assert document(answer)["next_cursor"] is None
    assert header(answer, "cache-control") == "no-store"
    assert header(answer, "access-control-allow-origin") is None
    assert document(answer)["data"][0] == document(await shard.get("order-0006"))


async def test_pages_follow_each_other_without_gap_or_repetition(shard: InProcessShard) -> None:
    seen: list[int] = []
    cursors: list[dict[str, str]] = [{}]
    while cursors:
        answer = await listed(shard, "", limit="3", **cursors.pop())
        seen += numbers(answer)
        if (cursor := document(answer)["next_cursor"]) is not None:
            cursors.append({"cursor": cursor})
    assert seen == [6, 5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"status": "failed"}, [5, 3, 1]),
        ({"customer_id": "cus-1"}, [1, 0]),
        ({"customer_id": "cus-1", "status": "failed"}, [1]),
        ({"created_gte": "2025-11-21T10:00:05Z"}, [6, 5]),
        ({"created_lt": "2025-11-21T10:00:01.000000Z"}, [0]),
        ({"created_gte": "2025-11-21T11:00:01+01:00", "created_lt": "2025-11-21T10:00:02.5Z"}, [2, 1]),
        (
            {"created_gte": "0001-01-01T00:00:00Z", "created_lt": "9999-12-31T23:59:59.999999Z"},
            list(range(7))[::-1],
        ),
        ({"customer_id": "nobody"}, []),
    ],
)
async def test_filters_hold_together(
    shard: InProcessShard, parameters: dict[str, str], expected: list[int]
) -> None:
    assert numbers(await listed(shard, "", **parameters)) == expected


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("status=paid&limit=0&cursor=x&created_gte=now&created_lt=&customer_id=", 6),
        ("limit=101", 1),
        ("limit=1&limit=2", 1),
        ("limit=%31%30%30%30", 1),
        ("colour=red&status=failed", 1),
        ("created_gte=2026-02-30T00:00:00Z", 1),
        ("created_gte=2026-02-01", 1),
        ("created_gte=2026-02-01T00:00:00", 1),
        ("customer_id=" + "a" * 65, 1),
        ("customer_id=a%00b", 1),
        (f"customer_id={PAN}", 1),
        (f"{PAN}=1", 1),
        ("customer_id=%ff", 1),
        ("status", 1),
        ("&", 1),
        ("&".join(f"a{n}=1" for n in range(20)), 1),
    ],
)
async def test_every_wrong_parameter_is_listed_and_nothing_repeated(
    shard: InProcessShard, query: str, fields: int
) -> None:
    refused = await listed(shard, query)
    assert_problem(refused, 400, "invalid_request")
    assert len({error["field"] for error in document(refused)["errors"]}) == fields
    assert PAN.encode() not in refused.body
    assert shard.ledger.asked == 0


@pytest.mark.parametrize(
    "cursor",
    [
        "AAAA",
        "====",
        cursor_of(ListPlace(created_at_us=1, checkout_id="a\0bcdefgh")),
        cursor_of(ListPlace(created_at_us=-1, checkout_id="order-0001")),
        cursor_of(ListPlace(created_at_us=2**62, checkout_id="order-0001")),
        cursor_of(ListPlace(created_at_us=1, checkout_id="order-0001")) + "A",
        CURSOR[:-1] + "R",  # the same bytes, written otherwise
    ],
)
async def test_a_cursor_that_nobody_gave_is_refused(shard: InProcessShard, cursor: str) -> None:
    assert_problem(await listed(shard, cursor=cursor), 400, "invalid_request")


async def test_who_has_no_key_has_no_list(shard: InProcessShard) -> None:
    shard.merchants.copy = b""
    assert_problem(await shard.send("GET", "/v1/payments"), 401, "unauthorized")
    secret = document(await shard.get("order-0001"))["client_secret"]
    answer = await shard.send("GET", "/v1/payments", query=f"client_secret={secret}")
    assert_problem(answer, 401, "unauthorized")


async def test_head_is_the_list_without_its_body(shard: InProcessShard) -> None:
    response = await shard.send("HEAD", "/v1/payments", ("Authorization", f"Bearer {API_KEY}"))
    assert (response.status, response.body) == (200, b"")
