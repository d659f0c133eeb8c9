"""What one pass of the relay sends, and what it may mark afterwards."""

from __future__ import annotations

from dataclasses import replace

import orjson
from hypothesis import given
from hypothesis import strategies as st

from processor.event import status_record
from processor.relay import delivered_entries, plan_deliveries
from processor.storage.outbox import Entry, Resend
from tests.fixtures.changes import NOW_US, accepted_payment
from tollgate import topics
from tollgate.status import NAME, PENDING, PROCESSING, SUCCEEDED, StatusValue
from tollgate.v1.shard_pb2 import StatusUpdate


def entry(version: int, status: StatusValue, shards: list[int], checkout_id: str = "checkout-0001") -> Entry:
    payment = accepted_payment(checkout_id)
    payment.status = status
    payment.version = version
    return Entry(
        id=version,
        merchant="acme",
        checkout_id=checkout_id,
        version=version,
        event_type=f"tollgate.payment.{NAME[status]}",
        operation_id=None,
        snapshot=payment.SerializeToString(),
        created_at_us=NOW_US,
        with_acceptance=False,
        shards=shards,
    )


VERSIONS = [entry(1, PENDING, [0]), entry(2, PROCESSING, [0]), entry(3, SUCCEEDED, [0, 5])]


def test_every_version_is_an_event_and_only_the_newest_is_a_status_update() -> None:
    plan = plan_deliveries(VERSIONS, [], lambda _: 7, NOW_US)
    events = [record for record in plan.records if record.topic == topics.EVENTS]
    statuses = [record for record in plan.records if record.topic == topics.STATUS]
    assert [dict(record.headers)["ce_id"] for record in events] == [
        b"acme/checkout-0001/1",
        b"acme/checkout-0001/2",
        b"acme/checkout-0001/3",
    ]
    assert [record.partition for record in statuses] == [0, 5, 7]
    assert {StatusUpdate.FromString(record.value).payment.version for record in statuses} == {3}


def test_one_row_tells_of_a_payment_s_acceptance_and_of_its_beginning() -> None:
    both = replace(entry(2, PROCESSING, [0]), with_acceptance=True)
    plan = plan_deliveries([both], [], lambda _: None, NOW_US)
    single = plan_deliveries(VERSIONS[:2], [], lambda _: None, NOW_US)
    assert [record for record in plan.records if record.topic == topics.EVENTS] == [
        record for record in single.records if record.topic == topics.EVENTS
    ]
    (status,) = (record for record in plan.records if record.topic == topics.STATUS)
    assert StatusUpdate.FromString(status.value).payment.SerializeToString() == both.snapshot
    assert plan.of_entry == [(both, [0, 1, 2])]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20_000), st.integers(1, 2**53))
def test_a_status_update_is_what_protobuf_itself_would_make_of_it(description: str, now_us: int) -> None:
    payment = accepted_payment()
    payment.description = description
    record = status_record(b"key", payment.SerializeToString(), 3, now_us)
    assert StatusUpdate.FromString(record.value) == StatusUpdate(payment=payment, published_at_us=now_us)


def test_an_event_is_a_cloud_event_in_binary_mode_without_the_client_secret() -> None:
    event = plan_deliveries(VERSIONS[2:], [], lambda _: None, NOW_US).records[0]
    headers = dict(event.headers)
    assert headers["ce_specversion"] == b"1.0"
    assert headers["ce_type"] == b"tollgate.payment.succeeded"
    assert headers["ce_subject"] == event.key == b"acme/checkout-0001"
    assert headers["content-type"] == b"application/json"
    document = orjson.loads(event.value)
    assert (document["status"], document["version"]) == ("succeeded", 3)
    assert "client_secret" not in document
    assert "merchant" not in document


def test_a_failed_delivery_keeps_the_whole_payment_unmarked_and_no_other() -> None:
    plan = plan_deliveries([*VERSIONS, entry(1, PENDING, [0], "checkout-0002")], [], lambda _: None, NOW_US)
    delivered = [True] * len(plan.records)
    delivered[plan.of_entry[2][1][-1]] = False
    assert [item.checkout_id for item in delivered_entries(plan, delivered)] == ["checkout-0002"]


def test_a_resend_goes_to_the_shard_that_is_owed_it_and_makes_no_event() -> None:
    payment = accepted_payment()
    plan = plan_deliveries([], [Resend(payment, 9, NOW_US)], lambda _: 1, NOW_US)
    assert [(record.topic, record.partition) for record in plan.records] == [(topics.STATUS, 9)]
