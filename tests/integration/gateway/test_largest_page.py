"""The largest page that a list can have comes through gRPC, and through nginx."""

from __future__ import annotations

import json
from http.client import HTTPConnection

from gateway.list_requests import LIMIT_MAX
from tests.fixtures.live_shards import LiveShards
from tests.fixtures.shard import API_KEY, MERCHANT
from tollgate.status import SUCCEEDED
from tollgate.v1.payment_pb2 import Capture, MetadataEntry, Payment

CUSTOMER = "cus-of-the-largest-page"


def test_a_page_of_the_largest_payments_is_answered_whole(live: LiveShards) -> None:
    for number in range(LIMIT_MAX):
        payment = Payment(
            merchant=MERCHANT,
            checkout_id=f"largest-{number:03d}",
            status=SUCCEEDED,
            version=2,
            amount=1,
            currency="EUR",
            capture=Capture.CAPTURE_AUTOMATIC,
            customer_id=CUSTOMER,
            description="\U0001f3ab" * 500,
            metadata=[
                MetadataEntry(key=f"{n:02d}" + "\U0001f3ab" * 38, value="\U0001f3ab" * 500) for n in range(20)
            ],
            created_at_us=1_795_255_200_000_000 + number,
        )
        live.ledger.payments[MERCHANT, payment.checkout_id] = payment
    try:
        connection = HTTPConnection(live.through, timeout=30)
        path = f"/v1/payments?limit={LIMIT_MAX}&customer_id={CUSTOMER}"
        connection.request("GET", path, headers={"Authorization": f"Bearer {API_KEY}"})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
    finally:
        for number in range(LIMIT_MAX):
            del live.ledger.payments[MERCHANT, f"largest-{number:03d}"]
    assert answer.status == 200, body[:500]
    assert len(body) > 4 * 1024 * 1024, "smaller than gRPC takes by itself: it would show nothing"
    ids = [payment["payment_checkout_id"] for payment in json.loads(body)["data"]]
    assert ids == [f"largest-{number:03d}" for number in reversed(range(LIMIT_MAX))]
